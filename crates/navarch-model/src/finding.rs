//! Findings: what is wrong with the configuration, where, and what to do about it.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::key::ObjectKey;
use crate::place::Position;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The object is not used, and its last good version stays; or what is named of it is left out or cannot
    /// work.
    Error,
    /// The object is used, though probably not as it was meant.
    Warning,
    /// Nothing to do; good to know.
    Info,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        })
    }
}

macro_rules! codes {
    ($( $(#[$meta:meta])* $name:ident $text:literal $title:literal, )+) => {
        /// What kind of finding it is. Codes are stable; `docs/findings.md` lists them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $( #[doc = $title] $(#[$meta])* $name, )+
        }

        impl Code {
            pub const ALL: &'static [Code] = &[ $( Code::$name, )+ ];

            /// For example `NAV0103`.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$name => $text, )+ }
            }

            /// One sentence on what the code means.
            pub const fn title(self) -> &'static str {
                match self { $( Self::$name => $title, )+ }
            }
        }
    };
}

codes! {
    Syntax "NAV0001" "The text is not YAML or JSON, or exceeds the limits on size and nesting.",
    NotText "NAV0002" "The file is not UTF-8 text.",
    DuplicateKey "NAV0003" "A mapping holds the same key twice.",
    UnknownField "NAV0101" "A field does not exist; it is ignored.",
    WrongType "NAV0102" "A value has a type that the field cannot take.",
    InvalidValue "NAV0103" "A value has the right type and is not allowed.",
    NotAnObject "NAV0201" "A document is no Kubernetes object: `apiVersion`, `kind` or `metadata.name` is missing.",
    UnknownKind "NAV0202" "The kind means nothing to a service mesh; the object is ignored.",
    UnknownVersion "NAV0203" "The API version is not served for this kind; the object is ignored.",
    InvalidName "NAV0204" "The name, namespace, a label or a timestamp is not valid.",
    DuplicateObject "NAV0205" "The same object is defined twice.",
    LastGood "NAV0206" "The last good version of an object stays in use because the present one cannot be read.",
    MissingField "NAV0301" "A required field is missing or empty.",
    ExclusiveFields "NAV0302" "Fields that exclude each other are set together.",
    OutOfRange "NAV0303" "A number or duration is out of range.",
    InvalidHost "NAV0304" "A host name, wildcard or namespace/host pair is not valid.",
    InvalidAddress "NAV0305" "An IP address, CIDR range, socket or path is not valid.",
    InvalidRegex "NAV0306" "A regular expression is not valid RE2.",
    InvalidLabel "NAV0307" "A label key or value is not valid.",
    InvalidReference "NAV0308" "A reference to another object, port or provider is not valid.",
    InvalidWeight "NAV0309" "Weights do not add up to anything that can be used.",
    Unreachable "NAV0310" "A rule can never take effect.",
    Deprecated "NAV0311" "A deprecated field or value is used.",
    NoEffect "NAV0312" "A setting has no effect in this place.",
    DuplicateItem "NAV0313" "A list holds an item twice that must be unique.",
    InvalidCombination "NAV0314" "Settings do not fit together.",
    InvalidUrl "NAV0315" "A URL is not valid.",
    InvalidExtension "NAV0316" "Embedded code or an Envoy patch is not usable.",
    Risky "NAV0317" "The setting is allowed and weakens security or reliability.",
    RefusedByEnvoy "NAV0318" "Envoy would refuse what a patch makes, or has refused what a patch, an extension or a Telemetry makes; it is left out.",
    NotConverted "NAV0319" "What is converted has no counterpart, or one that means something else.",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One thing that is wrong, or worth knowing, about the configuration.
///
/// Orders by place first, so that a sorted list reads like the files it is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Finding {
    /// Where it is written.
    #[serde(rename = "span")]
    pub position: Option<Position>,
    pub severity: Severity,
    pub code: Code,
    pub object: Option<ObjectKey>,
    /// The field, for example `spec.http[0].route[1].weight`; empty if the whole object is meant.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// What it is in conflict with.
    pub other: Option<Box<Other>>,
}

/// The other side of a conflict, which got what both wanted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Other {
    pub object: ObjectKey,
    /// The field; empty if the whole object is meant.
    pub path: String,
    /// Where it is written.
    #[serde(rename = "span")]
    pub position: Option<Position>,
}

impl Finding {
    pub fn new(severity: Severity, code: Code, message: impl Into<String>) -> Self {
        Self {
            position: None,
            severity,
            code,
            object: None,
            path: String::new(),
            message: message.into(),
            hint: None,
            other: None,
        }
    }

    pub fn error(code: Code, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message)
    }

    pub fn warning(code: Code, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, message)
    }

    pub fn info(code: Code, message: impl Into<String>) -> Self {
        Self::new(Severity::Info, code, message)
    }

    /// At a position, if there is one.
    pub fn at(mut self, position: impl Into<Option<Position>>) -> Self {
        self.position = position.into();
        self
    }

    pub fn of(mut self, object: ObjectKey) -> Self {
        self.object = Some(object);
        self
    }

    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// In conflict with a field of another object, whose place is looked up where findings are placed.
    #[must_use]
    pub fn against(mut self, object: ObjectKey, path: impl Into<String>) -> Self {
        self.other = Some(Box::new(Other { object, path: path.into(), position: None }));
        self
    }

    /// Looks up where the other side of a conflict is written.
    #[must_use]
    pub fn locate_other(mut self, locate: impl FnOnce(&ObjectKey, &str) -> Option<Position>) -> Self {
        if let Some(other) = &mut self.other {
            other.position = locate(&other.object, &other.path);
        }
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// `error[NAV0103] mesh.yaml:13:15: VirtualService default/reviews: spec.http[0].timeout: …; help: …`
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.severity, self.code)?;
        if let Some(position) = &self.position {
            write!(f, " {position}")?;
        }
        if let Some(object) = &self.object {
            write!(f, ": {object}")?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "; help: {hint}")?;
        }
        Ok(())
    }
}
