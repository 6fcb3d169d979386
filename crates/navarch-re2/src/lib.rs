//! Whether a regular expression is one that Envoy's engine, RE2, accepts and understands as its author does.
//!
//! In: a pattern. Out: what keeps it from being valid, in a few words. `regex-syntax` reads a language that
//! is close to RE2's; what differs is listed in the functions below. Pure, and knows nothing of who asks.

use regex_syntax::ast::{self, Ast, ClassSetItem, Visitor, parse::Parser, visit};

/// RE2's limit on counted repetition.
const MOST_REPETITIONS: u32 = 1000;

/// What keeps `pattern` from being valid RE2.
pub fn problem(pattern: &str) -> Option<String> {
    let pattern = rewrite(pattern);
    let ast = match Parser::new().parse(&pattern) {
        Ok(ast) => ast,
        Err(error) => return Some(error.kind().to_string()),
    };
    visit(&ast, Re2 { problem: None }).unwrap_or_default()
}

/// Replaces what only RE2 has: `\C` (any byte) and `\Q…\E` (literal text).
fn rewrite(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(at) = rest.find('\\') {
        let (before, tail) = rest.split_at(at);
        out.push_str(before);
        let mut chars = tail.chars().skip(1);
        match chars.next() {
            Some('C') => {
                out.push('.');
                rest = tail.get(2..).unwrap_or_default();
            }
            Some('Q') => {
                let literal = tail.get(2..).unwrap_or_default();
                let (literal, after) = literal.split_once("\\E").unwrap_or((literal, ""));
                out.push_str(&regex_syntax::escape(literal));
                rest = after;
            }
            Some(c) => {
                out.push('\\');
                out.push(c);
                rest = tail.get(1 + c.len_utf8()..).unwrap_or_default();
            }
            None => {
                out.push('\\');
                rest = "";
            }
        }
    }
    out.push_str(rest);
    out
}

/// Finds what `regex-syntax` reads and RE2 refuses or reads otherwise.
struct Re2 {
    problem: Option<String>,
}

impl Re2 {
    fn found(&mut self, problem: impl Into<String>) {
        self.problem.get_or_insert_with(|| problem.into());
    }

    fn flags(&mut self, flags: &ast::Flags) {
        for item in &flags.items {
            if let ast::FlagsItemKind::Flag(flag) = &item.kind
                && matches!(flag, ast::Flag::Unicode | ast::Flag::CRLF | ast::Flag::IgnoreWhitespace)
            {
                self.found("only the flags i, m, s and U exist");
            }
        }
    }
}

impl Visitor for Re2 {
    type Output = Option<String>;
    type Err = std::convert::Infallible;

    fn finish(self) -> Result<Self::Output, Self::Err> {
        Ok(self.problem)
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), Self::Err> {
        match ast {
            Ast::Flags(flags) => self.flags(&flags.flags),
            Ast::Group(group) => {
                if let Some(flags) = group.flags() {
                    self.flags(flags);
                }
            }
            Ast::Repetition(repetition) => {
                if matches!(&*repetition.ast, Ast::Repetition(_)) {
                    self.found("one repetition directly follows another");
                }
                if let ast::RepetitionKind::Range(range) = &repetition.op.kind {
                    let most = match range {
                        ast::RepetitionRange::Exactly(n) | ast::RepetitionRange::AtLeast(n) => *n,
                        ast::RepetitionRange::Bounded(_, n) => *n,
                    };
                    if most > MOST_REPETITIONS {
                        self.found(format!("a repetition counts more than {MOST_REPETITIONS}"));
                    }
                }
            }
            Ast::Assertion(assertion) => {
                use ast::AssertionKind as Kind;
                if !matches!(
                    assertion.kind,
                    Kind::StartLine
                        | Kind::EndLine
                        | Kind::StartText
                        | Kind::EndText
                        | Kind::WordBoundary
                        | Kind::NotWordBoundary
                ) {
                    self.found("the only word boundaries are \\b and \\B");
                }
            }
            Ast::Literal(literal) => self.literal(literal),
            _ => {}
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), Self::Err> {
        match item {
            ClassSetItem::Bracketed(_) => self.found("a class inside a class; escape the `[`"),
            ClassSetItem::Literal(literal) => self.literal(literal),
            _ => {}
        }
        Ok(())
    }

    fn visit_class_set_binary_op_pre(&mut self, _: &ast::ClassSetBinaryOp) -> Result<(), Self::Err> {
        self.found("classes have no set operations; escape `&&`, `--` and `~~`");
        Ok(())
    }
}

impl Re2 {
    fn literal(&mut self, literal: &ast::Literal) {
        use ast::{HexLiteralKind, LiteralKind};
        let unicode_escape = matches!(
            literal.kind,
            LiteralKind::HexFixed(HexLiteralKind::UnicodeShort | HexLiteralKind::UnicodeLong)
                | LiteralKind::HexBrace(HexLiteralKind::UnicodeShort | HexLiteralKind::UnicodeLong)
        );
        if unicode_escape {
            self.found("characters by number are written \\x{10FFFF}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_re2_accepts_is_accepted() {
        for pattern in [
            ".*",
            "^/api/v[0-9]+(/.*)?$",
            "a{1000}",
            "(?:a*)*",
            "(?i)abc",
            "(?i:abc)",
            "(?P<name>a)",
            r"\d+\.\w*\s",
            r"\bword\b",
            r"\C",
            r"\Qa.b*\E+",
            r"\Q*",
            "[[:alpha:]]",
            r"[\[a-z]",
            r"\pN",
            r"\x{10FFFF}",
            "a*?",
            "(?sU)a.",
            r"\A\z",
            r"[a\-z&]",
        ] {
            assert_eq!(problem(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn what_re2_refuses_or_reads_otherwise_is_found() {
        for pattern in [
            "*",
            "(",
            "[",
            "a**",
            "a+*",
            "x*+",
            "a{1001}",
            "a{2}{3}",
            "(?=a)",
            "(?<!a)",
            r"(a)\1",
            "(?x)a b",
            "(?u)a",
            "(?R)a",
            "[a&&b]",
            "[a--b]",
            "[a[b]]",
            r"\u0061",
            r"\b{start}a",
            r"\<a",
            r"\",
        ] {
            assert!(problem(pattern).is_some(), "{pattern}");
        }
    }
}
