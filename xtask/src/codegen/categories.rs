//! Which fields of the API hold extensions, and of which category: comments in the `.proto` files say so, as
//! `[#extension-category: envoy.filters.http]`.

use std::collections::BTreeMap;

use prost_types::{DescriptorProto, FileDescriptorSet};

const MARK: &str = "[#extension-category:";

// Field numbers of `google/protobuf/descriptor.proto`, which the paths of source positions are made of.
const FILE_MESSAGES: i32 = 4;
const MESSAGE_FIELDS: i32 = 2;
const MESSAGE_NESTED: i32 = 3;
const MESSAGE_ONEOFS: i32 = 8;

/// `<message> <field> <category>[,<category>...]`, a line for each field, sorted. The set must have source
/// positions.
pub fn table(set: &FileDescriptorSet) -> String {
    let mut lines: BTreeMap<String, String> = BTreeMap::new();
    for file in &set.file {
        let Some(source) = &file.source_code_info else { continue };
        for location in &source.location {
            let text = [location.leading_comments(), location.trailing_comments()].concat();
            let Some(categories) = categories(&text) else { continue };
            let [FILE_MESSAGES, index, path @ ..] = location.path.as_slice() else { continue };
            let message = usize::try_from(*index).ok().and_then(|index| file.message_type.get(index));
            let Some((name, found)) = message.and_then(|message| fields(message, path)) else { continue };
            for field in found {
                lines.insert(format!("{}.{name} {field}", file.package()), categories.clone());
            }
        }
    }
    lines.into_iter().map(|(field, categories)| format!("{field} {categories}\n")).collect()
}

/// The categories that a comment names, separated by commas.
fn categories(comment: &str) -> Option<String> {
    let (_, rest) = comment.split_once(MARK)?;
    let (listed, _) = rest.split_once(']')?;
    let names: Vec<&str> = listed.split(',').map(str::trim).collect();
    Some(names.join(","))
}

/// What a comment at a path inside a message is about: the name of the message within the file, and the
/// fields. A comment on a message or a `oneof` is about its field `typed_config`.
fn fields(message: &DescriptorProto, path: &[i32]) -> Option<(String, Vec<String>)> {
    let typed_config = || {
        let held = message.field.iter().filter(|field| field.name() == "typed_config");
        held.map(|field| field.name().to_owned()).collect()
    };
    match path {
        [] | [MESSAGE_ONEOFS, _] => Some((message.name().to_owned(), typed_config())),
        [MESSAGE_FIELDS, index] => {
            let field = message.field.get(usize::try_from(*index).ok()?)?;
            Some((message.name().to_owned(), vec![field.name().to_owned()]))
        }
        [MESSAGE_NESTED, index, rest @ ..] => {
            let nested = message.nested_type.get(usize::try_from(*index).ok()?)?;
            let (name, found) = fields(nested, rest)?;
            Some((format!("{}.{name}", message.name()), found))
        }
        _ => None,
    }
}
