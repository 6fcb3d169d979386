//! What a Rust file names of its crate, read from its tokens, so that what macros are given counts too.

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};

/// `crate::a::B` as its parts.
pub type Path = Vec<String>;

/// What a file names.
#[derive(Debug, Default)]
pub struct Imports {
    /// Imported or re-exported names, and what they stand for.
    pub names: BTreeMap<String, Path>,
    /// The paths of imports that are not re-exports.
    pub private: Vec<Path>,
    /// Modules everything of which is imported.
    pub globs: Vec<Path>,
    /// Paths with at least two parts outside imports.
    pub paths: Vec<Path>,
    /// Every identifier outside imports.
    pub words: BTreeSet<String>,
    /// Items that are defined here.
    pub defined: BTreeSet<String>,
}

/// Keywords after which the name of an item stands.
const DEFINING: [&str; 9] =
    ["struct", "enum", "trait", "fn", "type", "const", "static", "union", "macro_rules"];

/// Reads the text of a file. Fails if it is not Rust.
pub fn read(text: &str) -> Result<Imports> {
    let stream: TokenStream = text.parse().map_err(|error| anyhow!("not Rust: {error}"))?;
    let mut imports = Imports::default();
    scan(stream, 0, &mut imports);
    Ok(imports)
}

/// `depth` is the number of modules in the file that the tokens stand in.
fn scan(stream: TokenStream, depth: usize, imports: &mut Imports) {
    let tokens: Vec<TokenTree> = stream.into_iter().collect();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token {
            TokenTree::Punct(mark) if mark.as_char() == '#' => {
                at += usize::from(is_punct(tokens.get(at), '!'));
                let attribute = tokens.get(at).map(ToString::to_string).unwrap_or_default();
                at += 1;
                if attribute.replace(' ', "").starts_with("[cfg(test)") {
                    at = end_of_item(&tokens, at);
                }
            }
            TokenTree::Group(group) => scan(group.stream(), depth, imports),
            TokenTree::Ident(word) if word == "use" => {
                let end = (at..tokens.len()).find(|i| is_punct(tokens.get(*i), ';')).unwrap_or(tokens.len());
                let public = is_public(&tokens[..at - 1]);
                import(&tokens[at..end], depth, public, imports);
                at = end;
            }
            TokenTree::Ident(word) if word == "mod" => {
                if let Some(TokenTree::Group(body)) = tokens.get(at + 1) {
                    scan(body.stream(), depth + 1, imports);
                    at += 1;
                }
                at += 1;
            }
            TokenTree::Ident(word) => {
                let (path, end) = path(&tokens, at - 1);
                if DEFINING.iter().any(|keyword| word == keyword)
                    && let Some(TokenTree::Ident(name)) =
                        tokens.get(at + usize::from(is_punct(tokens.get(at), '!')))
                {
                    imports.defined.insert(name.to_string());
                }
                if !continues(&tokens[..at - 1]) {
                    imports.words.insert(word.to_string());
                    if path.len() > 1 {
                        imports.paths.extend(local(path, depth));
                    }
                }
                at = end.max(at);
            }
            _ => {}
        }
    }
}

/// Whether what follows is a field, a method, or the rest of a path that started elsewhere.
fn continues(before: &[TokenTree]) -> bool {
    let from_end = |n: usize| before.len().checked_sub(n).and_then(|at| before.get(at));
    is_punct(from_end(1), '.') || (is_punct(from_end(1), ':') && is_punct(from_end(2), ':'))
}

/// The path that starts with the identifier at `at`, and the index after it.
fn path(tokens: &[TokenTree], mut at: usize) -> (Path, usize) {
    let mut parts = Vec::new();
    while let Some(TokenTree::Ident(part)) = tokens.get(at) {
        parts.push(part.to_string());
        at += 1;
        if !(is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':')) {
            break;
        }
        at += 2;
    }
    (parts, at)
}

fn is_punct(token: Option<&TokenTree>, mark: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == mark)
}

/// Whether the tokens end in `pub` or `pub(...)`.
fn is_public(before: &[TokenTree]) -> bool {
    let last = match before.split_last() {
        Some((TokenTree::Group(group), rest)) if group.delimiter() == Delimiter::Parenthesis => rest.last(),
        Some((last, _)) => Some(last),
        None => None,
    };
    matches!(last, Some(TokenTree::Ident(word)) if word == "pub")
}

/// The index after the item that starts at `at`: after its braces or its semicolon.
fn end_of_item(tokens: &[TokenTree], at: usize) -> usize {
    let ends = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(mark) => mark.as_char() == ';',
        _ => false,
    };
    tokens.iter().skip(at).position(ends).map_or(tokens.len(), |length| at + length + 1)
}

/// The path as the file would name it, from inside `depth` of its own modules; `None` for what is within
/// those.
fn local(path: Path, depth: usize) -> Option<Path> {
    let supers = path.iter().take_while(|part| *part == "super").count();
    match path.first().map(String::as_str) {
        Some("super") if supers < depth => None,
        Some("super") => {
            let rest = path[depth..].to_vec();
            Some(if rest[0] == "super" { rest } else { [vec!["self".to_owned()], rest].concat() })
        }
        Some("self") if depth > 0 => None,
        _ => Some(path),
    }
}

/// One `use` without its keyword and semicolon.
fn import(tree: &[TokenTree], depth: usize, public: bool, imports: &mut Imports) {
    let mut leaves = Vec::new();
    flatten(tree, &[], &mut leaves);
    for (path, name) in leaves {
        let Some(path) = local(path, depth) else { continue };
        if name == "*" {
            imports.globs.push(path.clone());
        } else if depth == 0 {
            imports.names.insert(name, path.clone());
        }
        if !public {
            imports.private.push(path);
        }
    }
}

/// `a::{b, c as d}` as `a::b` named `b` and `a::c` named `d`; `a::*` as `a` named `*`.
fn flatten(tree: &[TokenTree], prefix: &[String], leaves: &mut Vec<(Path, String)>) {
    let mut path = prefix.to_vec();
    let mut name = None;
    let mut tokens = tree.iter();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Ident(word) if word == "as" => name = tokens.next().map(ToString::to_string),
            TokenTree::Ident(word) => path.push(word.to_string()),
            TokenTree::Group(group) => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                for part in inner.split(|token| is_punct(Some(token), ',')).filter(|part| !part.is_empty()) {
                    flatten(part, &path, leaves);
                }
                return;
            }
            TokenTree::Punct(mark) if mark.as_char() == '*' => name = Some("*".to_owned()),
            // A variable of a macro.
            TokenTree::Punct(mark) if mark.as_char() == '$' => return,
            _ => {}
        }
    }
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    if let Some(name) = name.or_else(|| path.last().cloned()) {
        leaves.push((path, name));
    }
}
