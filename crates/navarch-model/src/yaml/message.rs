//! The macros that define configuration types together with how they are read.
//!
//! Istio's kinds are protobuf messages that are read as JSON, which serde's derive does not fit: `oneof`
//! members are flat fields, `null` means unset, names may be camelCase or snake_case, and all problems of an
//! object are wanted at once with their positions. One table per type gives the type and its reading.

/// Defines a message: a struct, its default (everything unset) and its reading.
///
/// A field may carry its JSON name (`cluster_ip as "clusterIP": String`) where the rule does not give it.
/// After `;` follow `oneof` members, whose type comes from [`oneof`]. `defaults by hand` leaves `Default` to
/// the caller.
macro_rules! message {
    (
        $(#[$meta:meta])*
        pub struct $name:ident defaults by hand { $($body:tt)* }
    ) => {
        $crate::yaml::message! { @define
            [$(#[$meta])* #[derive(Clone, Debug, PartialEq, Eq, Hash)]]
            $name { $($body)* }
        }
    };
    (
        $(#[$meta:meta])*
        pub struct $name:ident { $($body:tt)* }
    ) => {
        $crate::yaml::message! { @define
            [$(#[$meta])* #[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]]
            $name { $($body)* }
        }
    };
    (@define
        [$($attribute:tt)*]
        $name:ident {
            $( $(#[$field_meta:meta])* $field:ident $(as $json:literal)? : $type:ty ),* $(,)?
            $(; $( $(#[$one_meta:meta])* oneof $one:ident : $one_type:ty ),+ $(,)? )?
        }
    ) => {
        $($attribute)*
        pub struct $name {
            $( $(#[$field_meta])* pub $field: $type, )*
            $($( $(#[$one_meta])* pub $one: Option<$one_type>, )+)?
        }

        impl $name {
            /// Reads the fields that `node` states over the values that are there.
            #[allow(unused_variables, unused_mut)]
            pub fn merge(&mut self, node: &$crate::yaml::Node, decoder: &mut $crate::yaml::Decoder) -> bool {
                const FIELDS: &[&str] = &[
                    $( $crate::yaml::message!(@name $field $($json)?), )*
                ];
                const ONEOFS: &[&[&str]] = &[ $($( <$one_type as $crate::yaml::Oneof>::FIELDS, )+)? ];
                let Some(entries) = decoder.mapping(node) else { return false };
                // A member that is stated replaces one that was there before.
                $($( let $one = self.$one.take(); )+)?
                for entry in entries {
                    let key = entry.key.as_str();
                    $(
                        if $crate::yaml::message!(@is $field $($json)?, key) {
                            decoder.field(entry, &mut self.$field);
                            continue;
                        }
                    )*
                    $($(
                        if let Some(index) = <$one_type as $crate::yaml::Oneof>::index_of(key) {
                            decoder.oneof(entry, index, &mut self.$one);
                            continue;
                        }
                    )+)?
                    decoder.unknown_field(entry, FIELDS, ONEOFS);
                }
                $($( self.$one = self.$one.take().or($one); )+)?
                true
            }
        }

        impl $crate::yaml::Decode for $name {
            fn decode(node: &$crate::yaml::Node, decoder: &mut $crate::yaml::Decoder) -> Option<Self> {
                let mut value = Self::default();
                value.merge(node, decoder).then_some(value)
            }

            fn fields() -> $crate::yaml::Fields {
                const FIELDS: &[$crate::yaml::Field] = &[ $( $crate::yaml::Field {
                    is: |key| $crate::yaml::message!(@is $field $($json)?, key),
                    fields: <$type as $crate::yaml::Decode>::fields,
                }, )* ];
                const ONEOFS: &[&str] = &[ $($( stringify!($one), )+)? ];
                // Members of a oneof are not looked for.
                match ONEOFS {
                    [] => $crate::yaml::Fields::Of(FIELDS),
                    _ => $crate::yaml::Fields::All,
                }
            }
        }
    };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $json:literal) => { $json };
    (@is $field:ident, $key:ident) => { $crate::yaml::json_name_matches(stringify!($field), $key) };
    (@is $field:ident $json:literal, $key:ident) => { $key == $json };
}

/// Defines the type of a `oneof`: an enum whose variants are named after fields of the message that holds it.
macro_rules! oneof {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $( $(#[$variant_meta:meta])* $field:ident => $variant:ident ( $type:ty ) ),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant($type), )+
        }

        impl $crate::yaml::Oneof for $name {
            const FIELDS: &'static [&'static str] = &[ $( stringify!($field), )+ ];

            fn decode_member(
                index: usize,
                node: &$crate::yaml::Node,
                decoder: &mut $crate::yaml::Decoder,
            ) -> Option<Self> {
                let mut current = 0usize;
                $(
                    if index == current {
                        return <$type as $crate::yaml::Decode>::decode(node, decoder).map(Self::$variant);
                    }
                    current += 1;
                )+
                let _ = current;
                None
            }
        }
    };
}

/// As [`oneof`], for messages that hold nothing but one `oneof`: the enum stands for the message.
macro_rules! union_message {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $($body:tt)+ }
    ) => {
        $crate::yaml::oneof! { $(#[$meta])* pub enum $name { $($body)+ } }

        impl $crate::yaml::Decode for $name {
            fn decode(node: &$crate::yaml::Node, decoder: &mut $crate::yaml::Decoder) -> Option<Self> {
                decoder.union(node)
            }
        }
    };
}

/// Defines an enum of the proto definitions: read by name or number; the first value is the default.
macro_rules! closed_enum {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $(#[$first_meta:meta])* $first:ident = $first_number:literal $first_text:literal
            $(, $(#[$variant_meta:meta])* $variant:ident = $number:literal $text:literal )* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            #[default]
            $(#[$first_meta])* $first = $first_number,
            $( $(#[$variant_meta])* $variant = $number, )*
        }

        impl $name {
            /// The name in Istio's API.
            pub const fn as_str(self) -> &'static str {
                match self {
                    Self::$first => $first_text,
                    $( Self::$variant => $text, )*
                }
            }
        }

        impl $crate::yaml::Decode for $name {
            fn decode(node: &$crate::yaml::Node, decoder: &mut $crate::yaml::Decoder) -> Option<Self> {
                const TABLE: &[(&str, i64, $name)] = &[
                    ($first_text, $first_number, $name::$first),
                    $( ($text, $number, $name::$variant), )*
                ];
                decoder.enumeration(node, TABLE)
            }
        }
    };
}

pub(crate) use {closed_enum, message, oneof, union_message};
