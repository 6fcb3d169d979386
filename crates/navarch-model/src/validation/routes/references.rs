//! References to parents and backends.

use super::at_most;
use super::text::{SUBDOMAIN_HINT, hostname, is_kind, is_label, is_subdomain};
use crate::finding::Code;
use crate::gateway_api::{BackendObjectReference, LocalObjectReference, ParentReference};
use crate::validation::Report;
use crate::validation::checks::{missing, port};

const MOST_PARENTS: usize = 32;
/// The largest share of a backend.
const MOST_WEIGHT: i32 = 1_000_000;

/// Checks the parents of a route: each of them, and that several references to one are told apart.
pub(super) fn parent_refs(report: &mut Report<'_>, parents: &[ParentReference]) {
    at_most(report, "parentRefs", parents.len(), MOST_PARENTS);
    report.each("parentRefs", parents, |report, parent| {
        let ParentReference { group, kind, namespace, name, section_name, port: number } = parent;
        object(report, group.as_deref(), kind.as_deref(), name);
        namespace_name(report, namespace.as_deref());
        if let Some(section) = section_name
            && !is_subdomain(section)
        {
            report.within("sectionName", |report| {
                let message = format!("{section:?} is not the name of a listener");
                report.error(Code::InvalidName, message, SUBDOMAIN_HINT);
            });
        }
        if let Some(number) = number {
            port(report, "port", *number);
        }
    });
    for (index, parent) in parents.iter().enumerate() {
        let same = parents.iter().take(index).find(|other| same_object(other, parent));
        let Some(other) = same else { continue };
        let section = |parent: &ParentReference| parent.section_name.clone().filter(|name| !name.is_empty());
        let number = |parent: &ParentReference| parent.port.filter(|number| *number != 0);
        let alike = section(other).is_some() == section(parent).is_some()
            && number(other).is_some() == number(parent).is_some();
        let again = parents.iter().take(index).any(|other| {
            same_object(other, parent) && section(other) == section(parent) && number(other) == number(parent)
        });
        report.within(&format!("parentRefs[{index}]"), |report| {
            if !alike {
                let message = "several references to one parent must all state sectionName, or all port";
                report.error(Code::InvalidCombination, message, "state the same fields in each of them");
            } else if again {
                let message = "the parent is referred to twice";
                report.error(
                    Code::DuplicateItem,
                    message,
                    "state another sectionName or port, or remove one",
                );
            }
        });
    }
}

/// As the CEL rules compare: what is stated, after defaults, with the namespace as it is written.
fn same_object(a: &ParentReference, b: &ParentReference) -> bool {
    let key = |parent: &'_ ParentReference| {
        let namespace = parent.namespace.clone().filter(|namespace| !namespace.is_empty());
        (parent.group().to_owned(), parent.kind().to_owned(), parent.name.clone(), namespace)
    };
    key(a) == key(b)
}

/// Checks the hosts of a route.
pub(super) fn hostnames(report: &mut Report<'_>, hosts: &[String], most: usize) {
    at_most(report, "hostnames", hosts.len(), most);
    report.each("hostnames", hosts, |report, host| hostname(report, host));
}

/// Checks a reference to what takes traffic.
pub(super) fn backend(report: &mut Report<'_>, backend: &BackendObjectReference) {
    let BackendObjectReference { group, kind, name, namespace, port: number } = backend;
    object(report, group.as_deref(), kind.as_deref(), name);
    namespace_name(report, namespace.as_deref());
    match number {
        Some(number) => port(report, "port", *number),
        None if backend.is_service() => missing(report, "port", "say which port of the Service is meant"),
        None => {}
    }
}

/// Checks the share of a backend.
pub(super) fn weight(report: &mut Report<'_>, weight: Option<i32>) {
    if let Some(weight) = weight
        && !(0..=MOST_WEIGHT).contains(&weight)
    {
        report.within("weight", |report| {
            let message = format!("{weight} is not a weight");
            report.error(Code::InvalidWeight, message, format!("use 0 to {MOST_WEIGHT}"));
        });
    }
}

/// Checks a reference to an object that extends a route.
pub(super) fn local_object(report: &mut Report<'_>, reference: &LocalObjectReference) {
    let LocalObjectReference { group, kind, name } = reference;
    object(report, Some(group), Some(kind), name);
}

fn object(report: &mut Report<'_>, group: Option<&str>, kind: Option<&str>, name: &str) {
    if let Some(group) = group
        && !group.is_empty()
        && !is_subdomain(group)
    {
        report.within("group", |report| {
            report.error(Code::InvalidReference, format!("{group:?} is not an API group"), SUBDOMAIN_HINT);
        });
    }
    if let Some(kind) = kind
        && !is_kind(kind)
    {
        report.within("kind", |report| {
            let message = format!("{kind:?} is not a kind");
            report.error(Code::InvalidReference, message, "write it as objects do, for example Service");
        });
    }
    if name.is_empty() {
        missing(report, "name", "name the object");
    } else if name.len() > 253 {
        report.within("name", |report| {
            report.error(Code::InvalidReference, "the name is longer than 253 characters", "");
        });
    }
}

fn namespace_name(report: &mut Report<'_>, namespace: Option<&str>) {
    if let Some(namespace) = namespace
        && !is_label(namespace)
    {
        report.within("namespace", |report| {
            let message = format!("{namespace:?} is not a namespace");
            report.error(Code::InvalidReference, message, "use lower-case letters, digits and inner hyphens");
        });
    }
}
