//! CRC-32C over several pieces.

use crc_fast::{CrcAlgorithm, Digest};

/// The checksum of `pieces` one after the other.
pub(super) fn crc32c(pieces: &[&[u8]]) -> u32 {
    finish(Digest::new(CrcAlgorithm::Crc32Iscsi), pieces)
}

/// The same, begun with `seed`: two seeds never give the same sum to the same bytes.
pub(super) fn crc32c_seeded(seed: u32, pieces: &[&[u8]]) -> u32 {
    finish(Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(seed)), pieces)
}

fn finish(mut digest: Digest, pieces: &[&[u8]]) -> u32 {
    for piece in pieces {
        digest.update(piece);
    }
    // A sum of 32 bits in the lower half.
    (digest.finalize() & 0xFFFF_FFFF) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_castagnoli_sum() {
        assert_eq!(crc32c(&[b"123456789"]), 0xE306_9283);
        assert_eq!(crc32c(&[b"1234", b"", b"56789"]), 0xE306_9283);
    }

    #[test]
    fn seeds_part_equal_bytes() {
        let sums: std::collections::HashSet<u32> =
            (0..1_000).map(|seed| crc32c_seeded(seed, &[b"the same"])).collect();
        assert_eq!(sums.len(), 1_000);
    }
}
