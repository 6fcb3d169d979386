//! Changes of valid resources that a careless patch could make.

use serde_json::{Value, json};

/// Numbers that look random and are the same in each run.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let mixed = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(mixed).unwrap_or_default() % limit.max(1)
    }

    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }
}

/// Changes one place, or now and then two. `pool` is where other configurations of extensions come from.
pub fn mutate(value: &mut Value, pool: &[&Value], dice: &mut Dice) {
    let changes = if dice.below(4) == 0 { 2 } else { 1 };
    for _ in 0..changes {
        let mut paths = Vec::new();
        collect(value, &mut Vec::new(), &mut paths);
        let Some(path) = dice.pick(&paths).cloned() else { return };
        if let Some(target) = at(value, &path) {
            change(target, pool, dice);
        }
    }
    without_nulls(value);
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => {
            items.retain(|item| !item.is_null());
            items.iter_mut().for_each(without_nulls);
        }
        _ => {}
    }
}

#[derive(Clone)]
enum Step {
    Key(String),
    Index(usize),
}

fn collect(value: &Value, path: &mut Vec<Step>, paths: &mut Vec<Vec<Step>>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields.iter().filter(|(name, _)| !SKIPPED.contains(&name.as_str())) {
                path.push(Step::Key(name.clone()));
                paths.push(path.clone());
                collect(field, path, paths);
                path.pop();
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push(Step::Index(index));
                collect(item, path, paths);
                path.pop();
            }
        }
        _ => {}
    }
}

/// What nobody reads, or what the bootstrap around the resource says anew.
const SKIPPED: [&str; 4] = ["metadata", "clusterName", "validateClusters", "filterMetadata"];

fn at<'a>(value: &'a mut Value, path: &[Step]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |value, step| match step {
        Step::Key(name) => value.get_mut(name),
        Step::Index(index) => value.get_mut(index),
    })
}

fn change(value: &mut Value, pool: &[&Value], dice: &mut Dice) {
    match value {
        Value::Object(fields) if fields.contains_key("@type") && dice.below(2) == 0 => {
            let mut extensions = Vec::new();
            pool.iter().for_each(|other| configurations(other, &mut extensions));
            *value = match dice.below(4) {
                0 => json!({ "@type": fields["@type"] }),
                1 => {
                    json!({ "@type": "type.googleapis.com/xds.type.v3.TypedStruct", "typeUrl": fields["@type"],
                             "value": without_type(fields) })
                }
                _ => dice.pick(&extensions).map(|other| (*other).clone()).unwrap_or(Value::Null),
            };
        }
        Value::Object(fields) => {
            let names: Vec<String> = fields.keys().filter(|name| *name != "@type").cloned().collect();
            if let Some(name) = dice.pick(&names) {
                fields.shift_remove(name);
            } else {
                *value = Value::Null;
            }
        }
        Value::Array(items) => match dice.below(5) {
            0 => items.clear(),
            1 => items.reverse(),
            2 => drop(items.pop()),
            3 => items.extend(items.first().cloned()),
            _ if items.len() > 1 => items.rotate_left(1),
            _ => items.push(Value::Null),
        },
        Value::String(text) => *value = changed_text(text, dice),
        Value::Number(_) => *value = dice.pick(&NUMBERS).map_or(Value::Null, |number| json!(number)),
        Value::Bool(flag) => *value = json!(!*flag),
        Value::Null => {}
    }
}

const NUMBERS: [i64; 9] = [0, 1, 2, 99, 101, 600, 65_536, 4_294_967_295, 9_000_000];

const TEXTS: [&str; 12] =
    ["", "*", "a b", "a\nb", "host", ":path", "(", "%NOPE", "0s", "-1s", "0.0001s", "10.0.0.1"];

fn changed_text(text: &str, dice: &mut Dice) -> Value {
    if text.starts_with("type.googleapis.com/") {
        return json!("type.googleapis.com/google.protobuf.Empty");
    }
    match dice.below(3) {
        0 => json!(""),
        1 => json!(text.to_ascii_uppercase()),
        _ => dice.pick(&TEXTS).map_or(Value::Null, |text| json!(text)),
    }
}

fn without_type(fields: &serde_json::Map<String, Value>) -> Value {
    let mut fields = fields.clone();
    fields.shift_remove("@type");
    Value::Object(fields)
}

/// Every configuration of an extension in a resource.
fn configurations<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            if fields.contains_key("@type") {
                found.push(value);
            }
            fields.values().for_each(|field| configurations(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| configurations(item, found)),
        _ => {}
    }
}
