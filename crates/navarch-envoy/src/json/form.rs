//! Forms that JSON has for some messages.

/// Messages inside messages, counted through `Any`, beyond which input is refused and output stays encoded.
pub const DEPTH_MAX: usize = 100;

/// Whether inside an `Any` the message stands as a whole under the key `value`: the types whose JSON is not
/// an object of their fields, and `Empty`.
pub fn has_own_form(full_name: &str) -> bool {
    let special = ["Any", "Duration", "Empty", "FieldMask", "ListValue", "Struct", "Timestamp", "Value"];
    let short = full_name.strip_prefix("google.protobuf.");
    short.is_some_and(|short| is_wrapper(short) || special.contains(&short))
}

/// Whether the message of `google.protobuf` is a scalar that can be absent.
pub fn is_wrapper(short: &str) -> bool {
    let wrapped = ["Bool", "String", "Bytes", "Double", "Float", "Int32", "Int64", "UInt32", "UInt64"];
    short.strip_suffix("Value").is_some_and(|scalar| wrapped.contains(&scalar))
}
