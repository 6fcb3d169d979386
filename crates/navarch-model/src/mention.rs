//! Whether an object says something, wherever.

use std::hash::Hasher;

use crate::kinds::Spec;

impl Spec {
    /// Whether a text is part of a name, a key or a value anywhere in the specification.
    ///
    /// The search goes where hashing goes, and `#[derive(Hash)]` visits every field, so it cannot miss one
    /// that is added later.
    pub fn mentions(&self, text: &str) -> bool {
        let mut search = Search { text: text.as_bytes(), found: text.is_empty() };
        self.feed(&mut search);
        search.found
    }
}

struct Search<'t> {
    text: &'t [u8],
    found: bool,
}

impl Hasher for Search<'_> {
    fn write(&mut self, bytes: &[u8]) {
        self.found = self.found || bytes.windows(self.text.len()).any(|window| window == self.text);
    }

    /// Nobody asks: what is fed is searched, not hashed.
    fn finish(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use crate::parse_text;

    #[test]
    fn a_text_is_found_wherever_it_is() {
        let check = |spec: &str, expected: bool| {
            let text = format!(
                "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: needle}}\nspec: {spec}\n"
            );
            let parsed = parse_text("rule.yaml", &text);
            assert!(parsed.rejected.is_empty(), "{:?}", parsed.findings);
            assert_eq!(parsed.objects[0].spec.mentions("needle"), expected, "{spec}");
        };
        check("{host: a}", false);
        check("{host: needle}", true);
        check("{host: a.needle.example}", true);
        check("{host: a, workloadSelector: {matchLabels: {needle: x}}}", true);
        check("{host: a, workloadSelector: {matchLabels: {x: needle}}}", true);
        check("{host: a, workloadSelector: {matchLabels: {need: le}}}", false);
        let policy = "loadBalancer: {localityLbSetting: {failoverPriority: [x, needle=y]}}";
        check(&format!("{{host: a, trafficPolicy: {{{policy}}}}}"), true);
        check(&format!("{{host: a, subsets: [{{name: s, trafficPolicy: {{{policy}}}}}]}}"), true);
    }
}
