//! Builders for descriptors written as tables.

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, MessageOptions, OneofDescriptorProto,
};

/// What a field holds. Message and enum types are named in full, with a leading dot.
#[derive(Clone, Copy)]
pub enum Holds {
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint32s,
    Text,
    Texts,
    Bytes,
    ByteStrings,
    Message(&'static str),
    Messages(&'static str),
    Enum(&'static str),
    Enums(&'static str),
    /// A map from string to string.
    TextMap,
    /// A map from string to a message.
    MessageMap(&'static str),
}

use Holds::{Message, MessageMap, Text, TextMap};

/// Name and number of a field, and what it holds.
pub type Field = (&'static str, i32, Holds);

/// A proto3 file without services.
pub fn file(
    name: &str,
    package: &str,
    imports: &[&str],
    messages: Vec<DescriptorProto>,
    enums: Vec<EnumDescriptorProto>,
) -> FileDescriptorProto {
    FileDescriptorProto {
        name: Some(name.to_owned()),
        package: Some(package.to_owned()),
        dependency: imports.iter().map(|import| (*import).to_owned()).collect(),
        message_type: messages,
        enum_type: enums,
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    }
}

/// A message in `scope`, which is the package or the full name of the message around it.
pub fn message(scope: &str, name: &str, fields: &[Field]) -> DescriptorProto {
    let mut entries = Vec::new();
    let field = fields
        .iter()
        .map(|&(field_name, number, holds)| {
            let value = match holds {
                TextMap => Text,
                MessageMap(target) => Message(target),
                plain => return field(field_name, number, plain, None),
            };
            let entry_name = format!("{}Entry", camel_case(field_name));
            entries.push(DescriptorProto {
                name: Some(entry_name.clone()),
                field: vec![field("key", 1, Text, None), field("value", 2, value, None)],
                options: Some(MessageOptions { map_entry: Some(true), ..MessageOptions::default() }),
                ..DescriptorProto::default()
            });
            field(field_name, number, holds, Some(format!(".{scope}.{name}.{entry_name}")))
        })
        .collect();
    DescriptorProto { name: Some(name.to_owned()), field, nested_type: entries, ..DescriptorProto::default() }
}

fn field(name: &str, number: i32, holds: Holds, entry: Option<String>) -> FieldDescriptorProto {
    let (kind, label, target) = match holds {
        Holds::Bool => (Type::Bool, Label::Optional, None),
        Holds::Int32 => (Type::Int32, Label::Optional, None),
        Holds::Int64 => (Type::Int64, Label::Optional, None),
        Holds::Uint32 => (Type::Uint32, Label::Optional, None),
        Holds::Uint32s => (Type::Uint32, Label::Repeated, None),
        Text => (Type::String, Label::Optional, None),
        Holds::Texts => (Type::String, Label::Repeated, None),
        Holds::Bytes => (Type::Bytes, Label::Optional, None),
        Holds::ByteStrings => (Type::Bytes, Label::Repeated, None),
        Message(target) => (Type::Message, Label::Optional, Some(target.to_owned())),
        Holds::Messages(target) => (Type::Message, Label::Repeated, Some(target.to_owned())),
        Holds::Enum(target) => (Type::Enum, Label::Optional, Some(target.to_owned())),
        Holds::Enums(target) => (Type::Enum, Label::Repeated, Some(target.to_owned())),
        TextMap | MessageMap(_) => (Type::Message, Label::Repeated, entry),
    };
    let mut json_name = camel_case(name);
    json_name[..1].make_ascii_lowercase();
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(label.into()),
        r#type: Some(kind.into()),
        type_name: target,
        json_name: Some(json_name),
        ..FieldDescriptorProto::default()
    }
}

/// Makes the named fields members of one oneof.
pub fn one_of(mut message: DescriptorProto, name: &str, members: &[&str]) -> DescriptorProto {
    let index = i32::try_from(message.oneof_decl.len()).ok();
    message.oneof_decl.push(OneofDescriptorProto { name: Some(name.to_owned()), options: None });
    for field in message.field.iter_mut().filter(|field| members.contains(&field.name())) {
        field.oneof_index = index;
    }
    message
}

/// Lets the named scalar be absent. Protobuf writes that as a oneof of its own.
pub fn optional(message: DescriptorProto, name: &str) -> DescriptorProto {
    let mut message = one_of(message, &format!("_{name}"), &[name]);
    for field in message.field.iter_mut().filter(|field| field.name() == name) {
        field.proto3_optional = Some(true);
    }
    message
}

/// Puts enums inside a message.
pub fn with_enums(mut message: DescriptorProto, enums: Vec<EnumDescriptorProto>) -> DescriptorProto {
    message.enum_type.extend(enums);
    message
}

/// An enum whose values count up from 0.
pub fn numbered(name: &str, values: &[&str]) -> EnumDescriptorProto {
    let value = (0..)
        .zip(values)
        .map(|(number, value)| EnumValueDescriptorProto {
            name: Some((*value).to_owned()),
            number: Some(number),
            options: None,
        })
        .collect();
    EnumDescriptorProto { name: Some(name.to_owned()), value, ..EnumDescriptorProto::default() }
}

fn camel_case(snake: &str) -> String {
    let words = snake.split('_').map(|word| {
        let (first, rest) = word.split_at(1.min(word.len()));
        first.to_ascii_uppercase() + rest
    });
    words.collect()
}
