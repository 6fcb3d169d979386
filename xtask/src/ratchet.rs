//! Numbers that may only fall: what is not as it should be, and is mended bit by bit.

/// A count that may not grow. Whoever makes it smaller lowers `max` in the same change.
pub struct Ratchet {
    what: &'static str,
    max: usize,
    why: &'static str,
    /// Each is worth a line, and not only their number.
    listed: bool,
}

/// Files of a crate that import each other, by group.
pub const CIRCLES: Ratchet = Ratchet {
    what: "circles of files that import each other",
    max: 6,
    why: "files in a circle are one file that was cut in the wrong place",
    listed: true,
};

/// Comment lines that are wider than [`crate::hygiene::COLUMNS_MAX`].
pub const WIDE_COMMENTS: Ratchet = Ratchet {
    what: "comment lines wider than 110 columns",
    max: 0,
    why: "rustfmt wraps code at 110 columns and leaves comments alone",
    listed: false,
};

impl Ratchet {
    /// Prints how many there are, and gives all of them as problems if there are too many.
    pub fn check(&self, found: &[String]) -> Vec<String> {
        let Self { what, max, why, listed } = self;
        println!("{} {what} (at most {max}): {why}", found.len());
        if found.len() < *max {
            println!("    lower that to {} in xtask/src/ratchet.rs", found.len());
        }
        if found.len() <= *max {
            found.iter().filter(|_| *listed).for_each(|one| println!("    {one}"));
            return Vec::new();
        }
        let mut problems = found.to_vec();
        problems.push(format!("{} {what}, and there were {max}: {why}", found.len()));
        problems
    }
}
