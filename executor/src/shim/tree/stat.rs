//! The form of `/proc/<pid>/stat`. Pure; reading the file is `tree`'s.

/// The fields of `/proc/<pid>/stat` that matter here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub state: char,
    pub parent: i32,
    pub session: i32,
    pub threads: u32,
    pub started: u64,
}

impl Stat {
    /// The second field is the program's name in parentheses and may hold anything, parentheses and blanks included;
    /// everything after the *last* closing one is fields.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let end_of_name = text.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(text.get(end_of_name + 1..)?).ok()?;
        // Counted from the third field, `state`.
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let session = fields.nth(1)?.parse().ok()?;
        let threads = fields.nth(13)?.parse().ok()?;
        let started = fields.nth(1)?.parse().ok()?;
        Some(Self { state, parent, session, threads, started })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_full_of_parentheses_does_not_confuse() {
        let text = b"42 (a) T 1 (b)) S 7 42 9 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 3 0 12345 1 2 3\n";
        let expected = Stat { state: 'S', parent: 7, session: 9, threads: 3, started: 12345 };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse(b""), None);
        assert_eq!(Stat::parse(b"42 (x) S 1"), None);
    }
}
