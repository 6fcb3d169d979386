//! Admission of new streams: by what they cost, and a token bucket for the rest.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// A new stream costs most of what it ever costs until its client has everything. As many as this may be at
/// it at a time; when one of them is done, the next one comes, so a herd of clients is let in as fast as the
/// work is done. Beyond that so many are let in per second, and as many at once after a quiet second,
/// whatever the others do: a client that never has everything keeps nobody out. Who would have to wait for
/// longer than the limit, going by how fast it went lately, is refused, and so is who has waited for as long.
#[derive(Debug)]
pub struct Admission {
    at_a_time: usize,
    per_second: f64,
    wait_max: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Streams that were let in and whose clients do not have everything.
    places: usize,
    /// Below zero: turns that were given to streams that wait.
    tokens: f64,
    /// Streams that have got a place while they waited, about as many as in the second before the last one
    /// that asked.
    pace: f64,
    at: Instant,
    /// Streams that wait for their turn, or for a place if that is free before.
    waiting: VecDeque<oneshot::Sender<Place>>,
}

/// The place of a stream among those whose clients do not have everything yet. To be dropped when it has.
#[derive(Debug)]
pub struct Place {
    admission: Option<Arc<Admission>>,
}

/// What a new stream is told.
#[derive(Debug)]
enum Answer {
    Admitted(Place),
    /// After this time, or when there is a place.
    Wait(Duration, oneshot::Receiver<Place>),
    Refused,
}

impl Admission {
    pub fn new(at_a_time: usize, per_second: f64, wait_max: Duration) -> Arc<Self> {
        let tokens = per_second.max(1.0);
        let (at, waiting) = (Instant::now(), VecDeque::new());
        let state = Mutex::new(State { places: 0, tokens, pace: 0.0, at, waiting });
        Arc::new(Self { at_a_time, per_second: tokens, wait_max, state })
    }

    /// Waits for the turn of a new stream; `None` if that would be too long.
    pub async fn admit(self: &Arc<Self>) -> Option<Place> {
        match self.ask(Instant::now()) {
            Answer::Admitted(place) => Some(place),
            Answer::Refused => None,
            Answer::Wait(turn, place) => {
                match tokio::time::timeout(turn.min(self.wait_max), place).await {
                    Ok(Ok(place)) => Some(place),
                    // It has become slower since.
                    Err(_) if turn > self.wait_max => {
                        self.lock().tokens += 1.0;
                        None
                    }
                    Ok(Err(_)) | Err(_) => Some(self.place(&mut self.lock())),
                }
            }
        }
    }

    fn ask(self: &Arc<Self>, now: Instant) -> Answer {
        let mut state = self.lock();
        self.pass(&mut state, now);
        // Who has had his turn, or is gone, does not wait any more.
        while state.waiting.front().is_some_and(oneshot::Sender::is_closed) {
            state.waiting.pop_front();
        }
        if state.places < self.at_a_time && state.waiting.is_empty() {
            return Answer::Admitted(self.place(&mut state));
        }
        let missing = (1.0 - state.tokens).max(0.0);
        let wait = Duration::from_secs_f64(missing / self.per_second);
        if missing / (self.per_second + state.pace) > self.wait_max.as_secs_f64() {
            return Answer::Refused;
        }
        state.tokens -= 1.0;
        if wait.is_zero() {
            return Answer::Admitted(self.place(&mut state));
        }
        let (turn, place) = oneshot::channel();
        state.waiting.push_back(turn);
        Answer::Wait(wait, place)
    }

    /// Time passes.
    fn pass(&self, state: &mut State, now: Instant) {
        let passed = now.saturating_duration_since(state.at).as_secs_f64();
        state.tokens = (state.tokens + passed * self.per_second).min(self.per_second);
        state.pace *= (-passed).exp();
        state.at = now;
    }

    fn place(self: &Arc<Self>, state: &mut State) -> Place {
        state.places += 1;
        Place { admission: Some(self.clone()) }
    }

    /// A client has everything: the first who waits takes the place, and gives his turn back.
    fn leave(self: &Arc<Self>) {
        let mut state = self.lock();
        state.places = state.places.saturating_sub(1);
        while state.places < self.at_a_time {
            let Some(waiting) = state.waiting.pop_front() else { return };
            let place = self.place(&mut state);
            match waiting.send(place) {
                Ok(()) => {
                    state.tokens += 1.0;
                    state.pace += 1.0;
                }
                // It is gone, or had its turn. Its place must not be given back under the lock.
                Err(mut place) => {
                    place.admission = None;
                    state.places -= 1;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(admission) = mem::take(&mut self.admission) {
            admission.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of a hundred are admitted at once, with their places, and how long the others wait.
    fn hundred(
        admission: &Arc<Admission>,
        at: Instant,
    ) -> (Vec<Place>, Vec<(u128, oneshot::Receiver<Place>)>) {
        let (mut admitted, mut waits) = (Vec::new(), Vec::new());
        for _ in 0..100 {
            match admission.ask(at) {
                Answer::Admitted(place) => admitted.push(place),
                Answer::Wait(wait, place) => waits.push((wait.as_millis(), place)),
                Answer::Refused => {}
            }
        }
        (admitted, waits)
    }

    #[test]
    fn rec_11_new_streams_are_limited_per_second() {
        let admission = Admission::new(0, 10.0, Duration::ZERO);
        let start = Instant::now();
        let count = |at| hundred(&admission, at).0.len();
        assert_eq!(count(start), 10);
        assert_eq!(count(start + Duration::from_millis(500)), 5);
        assert_eq!(count(start + Duration::from_secs(60)), 10);
    }

    #[test]
    fn rec_11_streams_wait_for_a_turn_that_comes_soon() {
        let admission = Admission::new(0, 10.0, Duration::from_secs(1));
        let start = Instant::now();
        let waits = |at: u64| -> (usize, Vec<u128>) {
            let (admitted, waits) = hundred(&admission, start + Duration::from_secs(at));
            (admitted.len(), waits.into_iter().map(|(wait, _)| wait).collect())
        };
        // Ten at once, one each tenth of a second, and the others are refused.
        let turns: Vec<u128> = (1..=10).map(|turn| 100 * turn).collect();
        assert_eq!(waits(0), (10, turns.clone()));
        // The turns that were given away are not given again.
        assert_eq!(waits(1), (0, turns.clone()));
        assert_eq!(waits(60), (10, turns));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_waited_for_as_long_as_one_may_is_refused() {
        let admission = Admission::new(0, 10.0, Duration::from_secs(1));
        admission.lock().pace = 100.0;
        let waits: Vec<_> = (0..25).map(|_| admission.ask(Instant::now())).collect();
        assert!(
            matches!(waits.last(), Some(Answer::Wait(turn, _)) if turn.as_secs_f64() > 1.2),
            "it went fast"
        );
        let tokens = admission.lock().tokens;
        assert!(admission.admit().await.is_none(), "it does not any more");
        assert!(admission.lock().tokens >= tokens, "nobody waits for this turn");
    }

    #[test]
    fn streams_come_in_as_fast_as_clients_get_everything() {
        let admission = Admission::new(4, 10.0, Duration::from_secs(1));
        let start = Instant::now();
        // Four at a time, ten that come beyond it, and ten that wait.
        let (mut admitted, mut waits) = hundred(&admission, start);
        assert_eq!((admitted.len(), waits.len()), (14, 10));
        // Nobody comes before only three are at it.
        admitted.truncate(4);
        assert!(waits.iter_mut().all(|(_, place)| place.try_recv().is_err()));
        // One after the other, in the order in which they came. One is gone.
        waits.remove(1);
        let mut next = Vec::new();
        for _ in 0..9 {
            admitted.remove(0);
            let place = waits.remove(0).1.try_recv();
            admitted.push(place.expect("the first who waits has a place"));
            next.push(waits.iter_mut().map(|(_, place)| place.try_recv()).filter(Result::is_ok).count());
        }
        assert_eq!(next, [0; 9], "and no other");
        drop(admitted);
        // The turns that they gave back are there for others, and as it goes twice as fast as it has to,
        // twice as many may wait.
        admission.lock().pace = 10.0;
        let (admitted, waits) = hundred(&admission, start);
        assert_eq!((admitted.len(), waits.len()), (4, 19));
        drop((waits, admitted));
        assert_eq!(admission.lock().places, 0);
    }
}
