//! Texts and what injection makes of them: `<case>.yaml` beside `<case>.injected.yaml`, which has what was
//! said as comments at its end. A first line `# settings: {...}` of a case sets what is not as usual.
//!
//! `cargo xtask golden --update` writes the second; look at the difference before you keep it.

#![expect(clippy::disallowed_methods, reason = "goldens are files")]

use std::path::{Path, PathBuf};

use navarch_inject::{Settings, inject_text};
use navarch_testkit::golden::updating;

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_case = |path: &PathBuf| !path.to_str().unwrap().ends_with(".injected.yaml");
    let mut cases: Vec<PathBuf> = files.filter(is_case).collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

fn settings_of(text: &str) -> Settings {
    let first = text.lines().next().and_then(|line| line.strip_prefix("# settings:"));
    let settings = Settings::parse(first.unwrap_or_default()).unwrap();
    Settings { image: "registry.example.com/navarch:1".to_owned(), ..settings }
}

#[test]
fn golden_injections_are_what_they_were() {
    let mut wrong = String::new();
    for case in cases() {
        let text = std::fs::read_to_string(&case).unwrap();
        let name = case.file_name().unwrap().to_str().unwrap();
        let settings = settings_of(&text);
        let injected = inject_text(&settings, "default", name, &text);
        let said: String = injected.findings.iter().map(|finding| format!("# {finding}\n")).collect();
        let made = injected.text.clone() + &said;
        let golden = case.with_extension("injected.yaml");
        if updating() {
            std::fs::write(&golden, &made).unwrap();
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != made {
            wrong.push_str(&format!("{} differs\n", golden.display()));
        }
        // What is there is as if it had never been there.
        let again = inject_text(&settings, "default", name, &injected.text);
        assert_eq!(again.text, injected.text, "{name} is not the same when it is injected again");
    }
    assert!(wrong.is_empty(), "{wrong}`cargo xtask golden --update` rewrites them; read the difference");
}
