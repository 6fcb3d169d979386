//! Names of gathers and translators: labels of metrics, and of translators the key of the cache.
//!
//! They are written at each `impl`, so no one place knows all of them; this reads them from the sources.

use std::collections::BTreeMap;

/// Where gathers and translators are.
const WHERE: [&str; 2] = ["crates/navarch-plan/src/", "crates/navarch-translate/src/"];

/// The names found so far, and where.
#[derive(Debug, Default)]
pub struct Names {
    found: BTreeMap<String, Vec<String>>,
}

impl Names {
    /// Adds the names that a file gives.
    pub fn add(&mut self, file: &str, text: &str) {
        if !WHERE.iter().any(|below| file.starts_with(below)) {
            return;
        }
        for (index, line) in text.lines().enumerate() {
            if let Some(name) = name_of(line.trim()) {
                self.found.entry(name.to_owned()).or_default().push(format!("{file}:{}", index + 1));
            }
        }
    }

    /// Names that do not fit the style, and those that are given twice.
    pub fn check(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, places) in &self.found {
            let all = places.join(", ");
            if !is_in_style(name) {
                problems.push(format!(
                    "{all}: {name:?} is not named as `type.what_of_it`, in small letters: it is a label of metrics"
                ));
            }
            if places.len() > 1 {
                problems.push(format!("{all}: {name:?} is given twice: metrics would add both up"));
            }
        }
        problems
    }
}

/// The name that a line gives: a constant, or a row of `planned_types!`.
fn name_of(line: &str) -> Option<&str> {
    let constant = line.strip_prefix("const NAME: &'static str = \"");
    if let Some(name) = constant {
        return name.strip_suffix("\";");
    }
    let (kind, rest) = line.split_once(" \"plan.")?;
    let is_row = kind.chars().all(char::is_alphanumeric) && rest.ends_with(';');
    let start = line.len() - rest.len() - "plan.".len();
    if is_row { line[start..].split_once('"').map(|(name, _)| name) } else { None }
}

fn is_in_style(name: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
    };
    name.split_once('.').is_some_and(|(ty, what)| is_word(ty) && is_word(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(texts: &[&str], expected: &[&str]) {
        let mut names = Names::default();
        texts.iter().for_each(|text| names.add("crates/navarch-plan/src/x.rs", text));
        let problems = names.check();
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        for (problem, text) in problems.iter().zip(expected) {
            assert!(problem.contains(text), "{problem}");
        }
    }

    #[test]
    fn names_have_one_style_and_are_given_once() {
        let constant = |name: &str| format!("    const NAME: &'static str = \"{name}\";\n");
        check(&[&constant("routes.seen_hosts"), &constant("routes.seen")], &[]);
        check(&[&constant("routes.seen"), &constant("routes.seen")], &["\"routes.seen\" is given twice"]);
        for name in ["routes", "listener groups", "Routes.seen", "routes.seen.hosts", "routes."] {
            check(&[&constant(name)], &["is not named as"]);
        }
        let row = "        Cds \"plan.sidecar_clusters\" sidecar::clusters::clusters;\n";
        check(&[row], &[]);
        check(&[row, row], &["plan.sidecar_clusters"]);
        check(&[&constant("plan.sidecar_clusters"), row], &["plan.sidecar_clusters"]);
    }

    #[test]
    fn other_crates_have_names_of_their_own() {
        let mut names = Names::default();
        names.add("crates/navarch-envoy/src/x.rs", "    const NAME: &'static str = \"Any\";\n");
        assert_eq!(names.check(), Vec::<String>::new());
    }
}
