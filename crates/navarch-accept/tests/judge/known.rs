//! Where the model and Envoy are known to differ, and why.

/// What Envoy refuses and the model passes: the part of Envoy's words, and the reason.
const PASSED: &[(&str, &str)] = &[
    ("unknown cluster", "which clusters there are is not in the resource"),
    ("Unknown cluster", "which clusters there are is not in the resource"),
    ("Not supported field in StreamInfo", "which commands a format has depends on the extensions beside it"),
    ("script load error", "what a script does when it is loaded is not known; its grammar is"),
    ("Unknown static", "which secrets the bootstrap brings is not in the resource"),
];

/// What the model refuses and Envoy passes: the part of the model's words, and the reason.
const BLAMED: &[(&str, &str)] =
    &[("Envoy ends at the first call", "the configuration is taken, and the process ends later")];

/// Whether a resource that Envoy refuses for `reason` is known to pass.
pub fn is_passed(reason: &str) -> bool {
    PASSED.iter().any(|(part, _)| reason.contains(part))
}

/// Whether what the model says is known to be too strict.
pub fn is_blamed(words: &[String]) -> bool {
    !words.is_empty() && words.iter().all(|word| BLAMED.iter().any(|(part, _)| word.contains(part)))
}
