//! Looking for plain text in what was written to disk.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

const BLOCK: usize = 1 << 20;

/// The first file below `folder` that holds these bytes, in whatever form of base64 or in the clear.
///
/// Files come and go meanwhile: one that cannot be opened any more is no finding.
pub fn on_disk_contains(folder: &Path, needle: &str) -> Option<PathBuf> {
    let needles = forms(needle.as_bytes());
    let mut folders = vec![folder.to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(path),
                Ok(kind) if kind.is_file() => {
                    files += 1;
                    if file_contains(&path, &needles) {
                        return Some(path);
                    }
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
    assert!(files > 0, "there is no file below {}: nothing was searched", folder.display());
    None
}

/// As it is, in UTF-16, and as it looks inside base64 at each of the three offsets.
fn forms(needle: &[u8]) -> Vec<Vec<u8>> {
    let utf16 = needle.iter().flat_map(|byte| [*byte, 0]).collect();
    let mut all = vec![needle.to_vec(), utf16];
    for skipped in 0..3 {
        let whole = &needle[skipped..];
        let whole = &whole[..whole.len() / 3 * 3];
        all.push(base64(whole));
    }
    assert!(all.iter().all(|form| form.len() >= 8), "the needle is too short to mean anything");
    all
}

/// Whole groups of three bytes only, so that there is no padding.
fn base64(bytes: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = bytes.chunks_exact(3).map(|g| u32::from_be_bytes([0, g[0], g[1], g[2]]));
    groups.flat_map(|group| [18, 12, 6, 0].map(|shift| ALPHABET[(group >> shift) as usize & 63])).collect()
}

fn file_contains(path: &Path, needles: &[Vec<u8>]) -> bool {
    let Ok(mut file) = File::open(path) else { return false };
    let overlap = needles.iter().map(Vec::len).max().unwrap_or(1) - 1;
    let mut window = Vec::new();
    loop {
        let kept = window.len().min(overlap);
        window.drain(..window.len() - kept);
        let read = (&mut file).take(BLOCK as u64).read_to_end(&mut window).unwrap_or(0);
        if read == 0 {
            return false;
        }
        if needles.iter().any(|needle| memchr::memmem::find(&window, needle).is_some()) {
            return true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_needle_is_found_in_every_form_and_over_the_edge_of_a_block() {
        let scratch = tempfile::tempdir().expect("tempdir");
        let deep = scratch.path().join("a/b");
        fs::create_dir_all(&deep).expect("mkdir");
        let needle = "the-secret-marker";
        // `base64` of "xxthe-secret-markeryy" and of "xthe-secret-marker".
        let mut straddling = vec![b'.'; BLOCK - 5];
        straddling.extend_from_slice(needle.as_bytes());
        let hiding_places: [&[u8]; 4] =
            [b"...the-secret-marker...", b"eHh0aGUtc2VjcmV0LW1hcmtlcnl5", b"eHRoZS1zZWNyZXQtbWFya2Vy", &straddling];
        for place in hiding_places {
            fs::write(deep.join("file"), place).expect("write");
            assert!(on_disk_contains(scratch.path(), needle).is_some(), "{}", String::from_utf8_lossy(&place[..20]));
        }
        fs::write(deep.join("file"), b"...the-secret-marke...").expect("write");
        assert_eq!(on_disk_contains(scratch.path(), needle), None);
    }
}
