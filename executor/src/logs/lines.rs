//! From bytes as they come to pieces worth an entry: whole lines where possible, soon in any case.

use std::time::Duration;

use tokio::time::Instant;

/// How long output waits for more of it. Short enough to feel live, long enough that a burst is one entry.
pub const FLUSH_AFTER: Duration = Duration::from_millis(100);

/// The longest piece; half of what an entry may have.
pub const PIECE_BYTES_MAX: usize = 32 << 10;

/// What has come of one stream and is not an entry yet.
#[derive(Debug, Default)]
pub struct Lines {
    pub buffer: Vec<u8>,
    due: Option<Instant>,
}

impl Lines {
    /// Something was added to the buffer.
    pub fn grew(&mut self, now: Instant) {
        self.due.get_or_insert(now + FLUSH_AFTER);
    }

    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    pub fn is_full(&self) -> bool {
        self.buffer.len() >= PIECE_BYTES_MAX
    }

    /// The next piece, if it is time for one. `ended`: nothing will be added.
    pub fn take(&mut self, now: Instant, ended: bool) -> Option<Vec<u8>> {
        let due = self.due.is_some_and(|due| now >= due);
        if self.buffer.is_empty() || !(due || ended || self.is_full()) {
            return None;
        }
        let most = &self.buffer[..self.buffer.len().min(PIECE_BYTES_MAX)];
        let cut = match most.iter().rposition(|byte| *byte == b'\n') {
            // An unfinished line waits for its end, or for its own time.
            Some(newline) if !(ended && self.buffer.len() <= PIECE_BYTES_MAX) => newline + 1,
            _ if ended && self.buffer.len() <= PIECE_BYTES_MAX => most.len(),
            _ => whole_characters(most),
        };
        let rest = self.buffer.split_off(cut);
        let piece = std::mem::replace(&mut self.buffer, rest);
        self.due = (!self.buffer.is_empty()).then_some(now + FLUSH_AFTER);
        Some(piece)
    }
}

/// How much of `bytes` does not end within a character. All of it if it is not text, or nothing but such a beginning.
fn whole_characters(bytes: &[u8]) -> usize {
    for (behind, byte) in bytes.iter().rev().take(4).enumerate() {
        let length = match byte {
            0x80..=0xbf => continue,
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 1,
        };
        let cut = bytes.len() - behind - 1;
        return if length > behind + 1 && cut > 0 { cut } else { bytes.len() };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The pieces that come at once, and those that come when their time is over.
    fn pieces(text: &[u8], ended: bool) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let mut now = Instant::now();
        let mut lines = Lines::default();
        lines.buffer.extend_from_slice(text);
        if !text.is_empty() {
            lines.grew(now);
        }
        let at_once: Vec<_> = std::iter::from_fn(|| lines.take(now, ended)).collect();
        let mut later = Vec::new();
        while let Some(due) = lines.due() {
            now = due;
            later.extend(lines.take(now, ended));
        }
        assert!(lines.buffer.is_empty(), "nothing stays for ever");
        (at_once, later)
    }

    #[test]
    fn lines_stay_whole_where_they_can() {
        assert_eq!(pieces(b"", false), (vec![], vec![]));
        assert_eq!(pieces(b"one\ntwo\n", false), (vec![], vec![b"one\ntwo\n".to_vec()]));
        assert_eq!(pieces(b"one\npart", false), (vec![], vec![b"one\n".to_vec(), b"part".to_vec()]));
        assert_eq!(pieces(b"prompt> ", false), (vec![], vec![b"prompt> ".to_vec()]));
        assert_eq!(pieces(b"one\npart", true), (vec![b"one\npart".to_vec()], vec![]));
    }

    #[test]
    fn much_output_does_not_wait() {
        let line = [[b'x'; 99].as_slice(), b"\n"].concat();
        let (at_once, later) = pieces(&line.repeat(1_000), false);
        assert!(at_once.len() >= 3 && at_once.iter().all(|p| p.ends_with(b"\n") && p.len() <= PIECE_BYTES_MAX));
        assert_eq!(at_once.concat().len() + later.concat().len(), 100_000);
        let (at_once, _) = pieces(&vec![b'x'; PIECE_BYTES_MAX * 2], false);
        assert_eq!(at_once.iter().map(Vec::len).collect::<Vec<_>>(), [PIECE_BYTES_MAX; 2], "a line without an end");
    }

    #[test]
    fn characters_stay_whole() {
        for character in ["ü", "€", "🦀"] {
            let text = character.repeat(PIECE_BYTES_MAX);
            let (at_once, later) = pieces(text.as_bytes(), false);
            for piece in at_once.iter().chain(&later) {
                assert!(std::str::from_utf8(piece).is_ok());
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost(text in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200), times in 1..400_usize, ended: bool) {
            let text = text.repeat(times);
            let (at_once, later) = pieces(&text, ended);
            prop_assert_eq!([at_once.concat(), later.concat()].concat(), text);
        }
    }
}
