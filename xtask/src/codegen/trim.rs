//! Cuts descriptors down to what is needed.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet};

/// Drops what no consumer reads: source positions, comments and options that steer other languages'
/// generators. Extensions of the options were dropped when the set was decoded.
pub fn without_options(mut set: FileDescriptorSet) -> FileDescriptorSet {
    for file in &mut set.file {
        file.source_code_info = None;
        file.options = None;
    }
    set
}

/// Keeps the top-level messages and enums of `roots` and everything that they reach through fields.
///
/// A root is a package, with those below it, or one message. A root that does not exist is an error, because
/// it would silently keep nothing after a rename upstream.
pub fn closure(set: &FileDescriptorSet, roots: &[&str]) -> Result<FileDescriptorSet> {
    let mut references: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut pending: Vec<String> = Vec::new();
    let mut used: BTreeSet<&str> = BTreeSet::new();
    for file in &set.file {
        for (name, targets) in top_level(file.package(), &file.message_type, &file.enum_type) {
            if let Some(root) = roots.iter().find(|root| is_below(&name, root)) {
                used.insert(root);
                pending.push(name.clone());
            }
            references.insert(name, targets);
        }
    }
    for root in roots {
        ensure!(used.contains(root), "there is neither a package nor a message {root}");
    }

    let mut kept: BTreeSet<String> = BTreeSet::new();
    while let Some(name) = pending.pop() {
        let Some(top) = enclosing(&name, &references) else { continue };
        if kept.insert(top.clone()) {
            pending.extend(references[&top].iter().cloned());
        }
    }

    let mut trimmed = set.clone();
    for file in &mut trimmed.file {
        let package = file.package().to_owned();
        file.message_type.retain(|message| kept.contains(&qualified(&package, message.name())));
        file.enum_type.retain(|kind| kept.contains(&qualified(&package, kind.name())));
        file.service.clear();
        file.extension.clear();
    }
    trimmed.file.retain(|file| !(file.message_type.is_empty() && file.enum_type.is_empty()));
    for file in &mut trimmed.file {
        file.message_type.iter_mut().for_each(without_deprecation);
        file.enum_type.iter_mut().flat_map(|kind| &mut kind.value).for_each(|value| value.options = None);
    }
    Ok(trimmed)
}

/// Istio emits deprecated fields, and must: a warning at each use would teach nothing.
fn without_deprecation(message: &mut DescriptorProto) {
    if let Some(options) = &mut message.options {
        options.deprecated = None;
    }
    for field in &mut message.field {
        if let Some(options) = &mut field.options {
            options.deprecated = None;
        }
    }
    let enums = message.enum_type.iter_mut();
    enums.flat_map(|kind| &mut kind.value).for_each(|value| value.options = None);
    message.nested_type.iter_mut().for_each(without_deprecation);
}

fn is_below(name: &str, root: &str) -> bool {
    name.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn qualified(package: &str, name: &str) -> String {
    format!("{package}.{name}")
}

/// Every top-level type with the type names that its fields, at any depth of nesting, mention.
fn top_level<'a>(
    package: &'a str,
    messages: &'a [DescriptorProto],
    enums: &'a [EnumDescriptorProto],
) -> impl Iterator<Item = (String, BTreeSet<String>)> + 'a {
    let messages = messages.iter().map(move |message| {
        let mut targets = BTreeSet::new();
        collect(message, &mut targets);
        (qualified(package, message.name()), targets)
    });
    messages.chain(enums.iter().map(move |kind| (qualified(package, kind.name()), BTreeSet::new())))
}

fn collect(message: &DescriptorProto, targets: &mut BTreeSet<String>) {
    let fields = message.field.iter().filter_map(|field| field.type_name.as_deref());
    targets.extend(fields.map(|name| name.trim_start_matches('.').to_owned()));
    for nested in &message.nested_type {
        collect(nested, targets);
    }
}

/// The top-level type that holds `name`, which may be nested in it.
fn enclosing(name: &str, known: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    let mut candidate = name;
    loop {
        if known.contains_key(candidate) {
            return Some(candidate.to_owned());
        }
        candidate = candidate.rsplit_once('.')?.0;
    }
}

#[cfg(test)]
mod tests {
    use prost_types::{FieldDescriptorProto, FileDescriptorProto};

    use super::*;

    /// A message with one field per target.
    fn message(name: &str, targets: &[&str]) -> DescriptorProto {
        let field = |target: &&str| FieldDescriptorProto {
            type_name: Some((*target).to_owned()),
            ..FieldDescriptorProto::default()
        };
        DescriptorProto {
            name: Some(name.to_owned()),
            field: targets.iter().map(field).collect(),
            ..DescriptorProto::default()
        }
    }

    fn set(packages: &[(&str, &[DescriptorProto])]) -> FileDescriptorSet {
        let file = |(package, messages): &(&str, &[DescriptorProto])| FileDescriptorProto {
            name: Some(format!("{package}.proto")),
            package: Some((*package).to_owned()),
            message_type: messages.to_vec(),
            ..FileDescriptorProto::default()
        };
        FileDescriptorSet { file: packages.iter().map(file).collect() }
    }

    #[test]
    fn keeps_what_is_reached() {
        let mut outer = message("Outer", &[]);
        outer.nested_type.push(message("Inner", &[".c.Far"]));
        let all = set(&[
            ("a.x", &[message("Root", &[".b.Outer.Inner"])]),
            ("ab", &[message("NotBelow", &[])]),
            ("b", &[outer, message("Unused", &[])]),
            ("c", &[message("Far", &[".a.x.Root"])]),
        ]);
        let kept = |roots: &[&str]| -> Vec<String> {
            let files = closure(&all, roots).unwrap().file;
            let names = |file: &FileDescriptorProto| {
                let messages = file.message_type.iter();
                messages.map(|message| qualified(file.package(), message.name())).collect::<Vec<_>>()
            };
            files.iter().flat_map(names).collect()
        };
        assert_eq!(kept(&["a"]), ["a.x.Root", "b.Outer", "c.Far"]);
        assert_eq!(kept(&["b.Unused"]), ["b.Unused"]);
    }

    #[test]
    fn refuses_a_root_that_does_not_exist() {
        let all = set(&[("a", &[message("Root", &[])])]);
        let error = closure(&all, &["a", "gone"]).unwrap_err();
        assert_eq!(error.to_string(), "there is neither a package nor a message gone");
    }
}
