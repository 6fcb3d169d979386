//! When a certificate is replaced.

use std::time::Duration;

use crate::time::Timestamp;

/// No certificate is replaced sooner, whatever it says.
const LIFE_MIN: Duration = Duration::from_secs(1);

/// When a certificate that was signed then and ends then is replaced: between a quarter and three quarters of
/// its life, at `share` of the time between these, which is between 0 and 1 and best chosen at random.
///
/// Those who began at once do not renew at once: as many renew in each moment of that half as on average ever
/// after.
#[must_use]
pub fn renew_at(signed_at: Timestamp, not_after: Timestamp, share: f64) -> Timestamp {
    let life = signed_at.until(not_after);
    let part = life.mul_f64(0.25 + share.clamp(0.0, 1.0) / 2.0);
    signed_at.after(part.max(LIFE_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_replaced_in_the_middle_of_its_life() {
        let check = |end: u64, share: f64, expected: u64| {
            assert_eq!(
                renew_at(Timestamp(1000), Timestamp(end), share),
                Timestamp(expected),
                "{end} {share}"
            );
        };
        check(5000, 0.0, 2000);
        check(5000, 0.5, 3000);
        check(5000, 1.0, 4000);
        check(5000, 7.0, 4000);
        check(1000, 0.0, 1001);
        check(900, 0.5, 1001);
    }

    /// 10,000 workloads that were started in one moment, over six lives of their certificates. In no
    /// hundredth of a life are there more than twice as many renewals as on average.
    #[test]
    fn who_began_at_once_does_not_renew_at_once() {
        const LIFE: u64 = 86_400;
        const LIVES: u64 = 6;
        // Numbers of xorshift (Marsaglia 2003).
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut share = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let mut renewals = vec![0_u32; (LIVES * 100) as usize];
        for _ in 0..10_000 {
            let mut now = Timestamp(0);
            loop {
                now = renew_at(now, now.after(Duration::from_secs(LIFE)), share());
                let Some(count) = renewals.get_mut((now.0 * 100 / LIFE) as usize) else { break };
                *count += 1;
            }
        }
        // The first quarter of a life has none, as nobody is due.
        let due = &renewals[25..];
        let mean = due.iter().sum::<u32>() as usize / due.len();
        let most = due.iter().max().copied().unwrap_or_default() as usize;
        assert!((150..250).contains(&mean), "{mean}");
        assert!(most <= 2 * mean, "{most} in one moment, {mean} on average");
    }
}
