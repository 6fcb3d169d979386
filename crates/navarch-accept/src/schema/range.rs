//! Which numbers a field may have.

use std::fmt::Display;

/// The numbers that a rule allows.
#[derive(Clone, Debug, PartialEq)]
pub struct Range<T> {
    /// Zero is allowed whatever else the rule says.
    pub or_zero: bool,
    pub exactly: Option<T>,
    pub below: Option<T>,
    pub at_most: Option<T>,
    pub above: Option<T>,
    pub at_least: Option<T>,
    pub one_of: Vec<T>,
    pub none_of: Vec<T>,
}

impl<T> Default for Range<T> {
    fn default() -> Self {
        Self {
            or_zero: false,
            exactly: None,
            below: None,
            at_most: None,
            above: None,
            at_least: None,
            one_of: Vec::new(),
            none_of: Vec::new(),
        }
    }
}

impl<T: PartialOrd + Copy + Display + Default> Range<T> {
    /// What the value must be and is not; `show` writes a value.
    pub fn violated(&self, value: T, show: impl Fn(T) -> String) -> Option<String> {
        if self.or_zero && value == T::default() {
            return None;
        }
        let bounds = [
            (
                self.exactly,
                value.partial_cmp(&self.exactly.unwrap_or(value)).is_some_and(|o| o.is_eq()),
                "be",
            ),
            (self.below, self.below.is_none_or(|bound| value < bound), "be less than"),
            (self.at_most, self.at_most.is_none_or(|bound| value <= bound), "be at most"),
            (self.above, self.above.is_none_or(|bound| value > bound), "be greater than"),
            (self.at_least, self.at_least.is_none_or(|bound| value >= bound), "be at least"),
        ];
        for (bound, holds, words) in bounds {
            if let (Some(bound), false) = (bound, holds) {
                return Some(format!("is {}, but must {words} {}", show(value), show(bound)));
            }
        }
        if !self.one_of.is_empty() && !self.one_of.contains(&value) {
            let allowed: Vec<String> = self.one_of.iter().map(|allowed| show(*allowed)).collect();
            return Some(format!("is {}, but must be one of {}", show(value), allowed.join(", ")));
        }
        if self.none_of.contains(&value) {
            return Some(format!("must not be {}", show(value)));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(range: &Range<i128>, allowed: &[i128], refused: &[(i128, &str)]) {
        for value in allowed {
            assert_eq!(range.violated(*value, |v| v.to_string()), None, "{value}");
        }
        for (value, words) in refused {
            assert_eq!(range.violated(*value, |v| v.to_string()).as_deref(), Some(*words));
        }
    }

    #[test]
    fn every_bound_counts() {
        check(
            &Range { above: Some(0), at_most: Some(10), ..Range::default() },
            &[1, 10],
            &[(0, "is 0, but must be greater than 0"), (11, "is 11, but must be at most 10")],
        );
        check(
            &Range { at_least: Some(5), below: Some(7), or_zero: true, ..Range::default() },
            &[0, 5, 6],
            &[(4, "is 4, but must be at least 5"), (7, "is 7, but must be less than 7")],
        );
        check(&Range { exactly: Some(1), ..Range::default() }, &[1], &[(2, "is 2, but must be 1")]);
        check(
            &Range { one_of: vec![1, 2], none_of: vec![2], ..Range::default() },
            &[1],
            &[(3, "is 3, but must be one of 1, 2"), (2, "must not be 2")],
        );
    }
}
