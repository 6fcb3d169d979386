//! Whether rules are tried in the order in which they were.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use navarch_model::Name;
use navarch_model::route::{Parent, RouteSet};

use crate::condition::overlap;
use crate::http::Placed;
use crate::report::Report;

/// The conditions for each host at each parent, in the order in which they are tried.
#[derive(Default)]
pub struct Order(BTreeMap<(Parent, Name), Vec<Placed>>);

impl Order {
    /// Adds the conditions of a set, which come after those that are there.
    pub fn add(&mut self, set: &RouteSet, placed: &[Placed]) {
        for parent in &set.parents {
            for host in &set.hosts {
                self.0.entry((parent.clone(), host.clone())).or_default().extend(placed.iter().cloned());
            }
        }
    }

    /// Tells where of two conditions for one request another one comes first now: the more specific one does,
    /// then the one of the route with the first name.
    pub fn check(&self, report: &mut Report<'_>) {
        for placed in self.0.values() {
            for (index, later) in placed.iter().enumerate() {
                let earlier = placed.iter().take(index);
                let mut overtaken = earlier.filter(|earlier| {
                    order(later) < order(earlier) && overlap(&earlier.condition, &later.condition)
                });
                if let Some(earlier) = overtaken.next() {
                    let message = format!(
                        "{} was tried before it, and this rule, whose condition is more specific, comes first now",
                        earlier.origin.field
                    );
                    let hint = "make conditions that do not overlap";
                    report.differs(&later.origin, message, hint);
                }
            }
        }
    }
}

/// What decides in the Gateway API. Everything that is made is of the same age.
fn order(placed: &Placed) -> (Reverse<navarch_model::route::Specificity>, &(String, String)) {
    (Reverse(placed.condition.specificity()), &placed.route)
}
