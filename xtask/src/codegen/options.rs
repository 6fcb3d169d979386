//! The descriptor set as it is committed: without what no consumer reads, with the options that say what
//! Envoy accepts.
//!
//! Those options are extensions. The plain descriptor types drop them when they are decoded, so the set goes
//! through dynamic messages here.

use anyhow::{Context, Result};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, ReflectMessage, Value};
use prost_types::FileDescriptorProto;

/// The extensions that are kept: the validation rules of Envoy's API, and what Envoy refuses because it is
/// too old.
const KEPT: &[&str] = &[
    "validate.rules",
    "validate.required",
    "validate.disabled",
    "validate.ignored",
    "envoy.annotations.disallowed_by_default",
    "envoy.annotations.disallowed_by_default_enum",
];

/// One encoded descriptor set of the encoded `sets` and of `extra`; of two files with one name the first
/// counts.
///
/// Source positions, comments and all options but [`KEPT`] and the standard ones of messages, fields and enum
/// values are dropped. The first set must define the extensions.
pub fn descriptors(sets: &[Vec<u8>], extra: &[FileDescriptorProto]) -> Result<Vec<u8>> {
    let pool = DescriptorPool::decode(sets.first().context("no descriptor set")?.as_slice())?;
    let kind = |name: &str| pool.get_message_by_name(name).with_context(|| format!("{name} is missing"));
    let (set, file) =
        (kind("google.protobuf.FileDescriptorSet")?, kind("google.protobuf.FileDescriptorProto")?);

    let mut files: Vec<DynamicMessage> = Vec::new();
    let mut add = |message: DynamicMessage| {
        let name = |file: &DynamicMessage| file.get_field_by_name("name").map(|name| name.into_owned());
        if !files.iter().any(|known| name(known) == name(&message)) {
            files.push(stripped_file(message));
        }
    };
    for bytes in sets {
        let mut decoded = DynamicMessage::decode(set.clone(), bytes.as_slice())?;
        messages(decoded.take_field_by_name("file")).for_each(&mut add);
    }
    for known in extra {
        add(DynamicMessage::decode(file.clone(), known.encode_to_vec().as_slice())?);
    }
    let mut whole = DynamicMessage::new(set);
    whole.set_field_by_name("file", Value::List(files.into_iter().map(Value::Message).collect()));
    Ok(whole.encode_to_vec())
}

/// The messages of a repeated field.
fn messages(field: Option<Value>) -> impl Iterator<Item = DynamicMessage> {
    let items = match field {
        Some(Value::List(items)) => items,
        _ => Vec::new(),
    };
    items.into_iter().filter_map(|item| match item {
        Value::Message(message) => Some(message),
        _ => None,
    })
}

fn stripped_file(mut file: DynamicMessage) -> DynamicMessage {
    file.clear_field_by_name("source_code_info");
    file.clear_field_by_name("options");
    strip(&mut file);
    file
}

/// Removes from the options anywhere below what is not kept.
fn strip(message: &mut DynamicMessage) {
    if is_options(&message.descriptor()) {
        let extensions: Vec<_> = message.extensions().map(|(extension, _)| extension).collect();
        for extension in extensions.iter().filter(|extension| !KEPT.contains(&extension.full_name())) {
            message.clear_extension(extension);
        }
        message.take_unknown_fields().for_each(drop);
        return;
    }
    for (_, value) in message.fields_mut() {
        match value {
            Value::Message(inner) => strip(inner),
            Value::List(items) => items.iter_mut().filter_map(Value::as_message_mut).for_each(strip),
            _ => {}
        }
    }
}

fn is_options(kind: &MessageDescriptor) -> bool {
    kind.parent_message().is_none() && kind.full_name().ends_with("Options")
}
