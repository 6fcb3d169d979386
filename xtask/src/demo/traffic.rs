//! Requests through the ingress gateway, and what came back.

use anyhow::Result;
use navarch_testkit::http::Call;
use serde_json::Value;
use std::{collections::BTreeMap, fmt};

/// Who asks.
#[derive(Debug, Clone)]
pub enum Caller {
    Anybody,
    /// Sends the header `end-user`.
    User(&'static str),
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Caller::Anybody => "anybody",
            Caller::User(name) => name,
        })
    }
}

/// How often each outcome was seen: a version of `reviews`, or why there was none.
#[derive(Debug, Default, Clone)]
pub struct Tally(BTreeMap<String, usize>);

impl Tally {
    /// Whole percent.
    pub fn share(&self, outcome: &str) -> usize {
        let total: usize = self.0.values().sum();
        self.0.get(outcome).map_or(0, |count| (count * 100 + total / 2) / total)
    }

    pub fn saw(&self, outcome: &str) -> bool {
        self.0.contains_key(outcome)
    }

    pub fn outcomes(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, outcome) in self.outcomes().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{outcome} {} %", self.share(outcome))?;
        }
        Ok(())
    }
}

/// Asks for the front page `requests` times, one after the other.
pub async fn send(url: &str, caller: &Caller, requests: usize) -> Result<Tally> {
    let mut tally = Tally::default();
    for _ in 0..requests {
        let mut call = Call::get(url);
        if let Caller::User(name) = caller {
            call = call.header("end-user", name);
        }
        let answer = call.send().await?;
        let outcome = if answer.status.is_success() {
            reviews(&answer.json()?)
        } else {
            format!("front page {}", answer.status.as_u16())
        };
        *tally.0.entry(outcome).or_default() += 1;
    }
    Ok(tally)
}

/// The version of `reviews` on the page, or the error in its place up to the first colon.
fn reviews(page: &Value) -> String {
    let reviews = &page["reviews"];
    match (reviews["version"].as_str(), reviews["error"].as_str()) {
        (Some(version), _) => version.to_owned(),
        (None, Some(error)) => error.split(':').next().unwrap_or(error).to_owned(),
        (None, None) => "no reviews".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn outcomes_are_counted_in_percent() {
        let tally = Tally(BTreeMap::from([("v1".to_owned(), 149), ("v3".to_owned(), 51)]));
        assert_eq!((tally.share("v1"), tally.share("v3"), tally.share("v2")), (75, 26, 0));
        assert_eq!(tally.to_string(), "v1 75 %, v3 26 %");
        assert_eq!(Tally::default().share("v1"), 0);
    }

    #[test]
    fn outcomes_of_pages() {
        for (page, expected) in [
            (json!({"reviews": {"version": "v2"}}), "v2"),
            (json!({"reviews": {"error": "status 418: fault filter abort"}}), "status 418"),
            (json!({}), "no reviews"),
        ] {
            assert_eq!(reviews(&page), expected);
        }
    }
}
