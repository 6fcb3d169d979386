//! Whether every proxy holds what it should: figures of a server that sends the wrong thing are worth
//! nothing.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use anyhow::{Context, Result};
use navarch_envoy::{Version, XdsType};
use serde::Serialize;
use serde_json::Value;

use crate::fleet::{Fleet, proxy_name};
use crate::proxy::{Held, content_of};
use crate::server::{self, Server};
use crate::shape::Shape;

/// The types that proxies hold.
const TYPES: [XdsType; 5] = [XdsType::Cds, XdsType::Eds, XdsType::Lds, XdsType::Rds, XdsType::Vhds];
/// The cluster of the port that every sidecar serves, as Istio names it.
const INBOUND: &str = "inbound|8080||";
/// Differences that are described; the rest is counted.
const SHOWN: usize = 10;

/// What the comparison found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Check {
    /// Proxies that were compared with another of their class.
    pub proxies: usize,
    /// Proxies that were compared with a plan made from scratch, resource by resource. With these the others
    /// of their class.
    pub planned: usize,
    pub mismatches: usize,
    /// The first ones.
    pub examples: Vec<String>,
}

impl Check {
    fn found(&mut self, what: String) {
        self.mismatches += 1;
        if self.examples.len() < SHOWN {
            self.examples.push(what);
        }
    }
}

/// Compares all proxies of a class with each other, and one of each of `classes` classes with what the server
/// says that it should hold. A difference may be a response on its way: it counts when it stays.
///
/// # Errors
/// If navarch does not say what a proxy should hold.
pub async fn check(shape: &Shape, fleet: &Fleet, server: &Server, classes: usize) -> Result<Check> {
    let mut check = Check::default();
    for attempt in 0..4 {
        fleet.settle(Duration::from_millis(300 << attempt), Duration::from_secs(30)).await;
        check = check_once(shape, fleet, server, classes).await?;
        if check.mismatches == 0 {
            break;
        }
    }
    Ok(check)
}

async fn check_once(shape: &Shape, fleet: &Fleet, server: &Server, classes: usize) -> Result<Check> {
    let mut check = Check::default();
    compare_classes(shape, fleet, server.admin.is_some(), &mut check);
    let Some(admin) = server.admin else { return Ok(check) };
    // Spread over all classes, the first and the last among them.
    let steps = classes.clamp(1, shape.classes);
    for step in 0..steps {
        let class = if steps == 1 { 0 } else { step * (shape.classes - 1) / (steps - 1) };
        let path = format!("/debug/checksum?names=true&proxyID={}", proxy_name(shape, class));
        let answer = tokio::task::spawn_blocking(move || server::get(admin, &path)).await??;
        let answer: Value =
            serde_json::from_str(&answer).context("/debug/checksum answers something else")?;
        compare_planned(shape, fleet, class, &answer, &mut check);
    }
    Ok(check)
}

/// Replicas of one Deployment hold the same: the same bytes, if the server encodes the same content as the
/// same bytes, as navarch does. And each is known to be an endpoint.
fn compare_classes(shape: &Shape, fleet: &Fleet, bytes: bool, check: &mut Check) {
    let mut shared = fleet.shared.borrow_mut();
    let inbound = shared.known.texts.id(INBOUND);
    let mut first: BTreeMap<usize, [u64; TYPES.len()]> = BTreeMap::new();
    for (index, member) in shared.proxies.iter().enumerate() {
        check.proxies += 1;
        let is_endpoint =
            || member.proxy.held(XdsType::Cds).is_some_and(|clusters| clusters.contains_key(&inbound));
        if shape.routes == 0 && !is_endpoint() {
            check.found(format!(
                "{} holds no CDS {INBOUND}: it is not taken for an endpoint of its service",
                proxy_name(shape, index)
            ));
        }
        let sums = TYPES.map(|ty| {
            let held = member.proxy.held(ty).into_iter().flatten();
            // A sum, because a hash map has no order.
            let content = |held: &Held| match bytes {
                true => held.content,
                false => shared.known.of(held.content).unordered,
            };
            held.map(|(id, held)| hash(&(id, content(held)))).fold(0, u64::wrapping_add)
        });
        let expected = first.entry(shape.class_of(index)).or_insert(sums);
        for (position, ty) in TYPES.iter().enumerate() {
            if expected.get(position) != sums.get(position) {
                check.found(format!("{} holds other {ty} than its replicas", proxy_name(shape, index)));
            }
        }
    }
}

/// The first proxy of a class holds what the server plans for it from scratch: all clusters and listeners,
/// and of the others what it refers to.
fn compare_planned(shape: &Shape, fleet: &Fleet, class: usize, answer: &Value, check: &mut Check) {
    let mut shared = fleet.shared.borrow_mut();
    let shared = &mut *shared;
    let Some(member) = shared.proxies.get(class) else { return };
    let name = proxy_name(shape, class);
    check.planned += 1;
    for ty in TYPES {
        let Some(held) = member.proxy.held(ty) else { continue };
        let nothing = serde_json::Map::new();
        let planned = answer.pointer(&format!("/types/{}/names", ty.short())).and_then(Value::as_object);
        let planned: BTreeMap<u32, u64> = planned
            .unwrap_or(&nothing)
            .iter()
            .filter_map(|(name, version)| {
                Some((shared.known.texts.id(name), content_of(Version::parse(version.as_str()?)?)))
            })
            .collect();
        for (id, held) in held {
            match planned.get(id) {
                Some(content) if *content == held.content => {}
                Some(_) => check.found(format!("{name} holds an old {ty} {}", shared.known.texts.text(*id))),
                None => {
                    check.found(format!("{name} holds {ty} {}, which is gone", shared.known.texts.text(*id)))
                }
            }
        }
        let is_all = ty.root() || ty == XdsType::Vhds;
        let wanted = |id: &u32| is_all || member.proxy.wants(ty, *id);
        for id in planned.keys().filter(|id| wanted(id) && !held.contains_key(id)) {
            check.found(format!("{name} lacks {ty} {}", shared.known.texts.text(*id)));
        }
        if ty.root() && planned.is_empty() {
            check.found(format!("the server plans no {ty} for {name}"));
        }
    }
}

fn hash(value: &impl Hash) -> u64 {
    // Without a seed: the same in every run.
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
