//! A small segment, cut at every byte, flipped at every byte, with pages lost: the pure verdict.

use super::super::frame::{FrameKind, Scan, put_frame, scan};

const INCARNATION: u64 = 0x0123_4567_89AB_CDEF;
const FIRST: u32 = 64;

/// A segment with batches of frames, and where each frame ends.
struct Built {
    bytes: Vec<u8>,
    /// Ends of the entries, with the number of their batch.
    ends: Vec<(u32, usize)>,
    /// Where each batch begins.
    starts: Vec<u32>,
}

fn build(batches: &[&[usize]]) -> Built {
    let mut built = Built { bytes: vec![0xEE; FIRST as usize], ends: Vec::new(), starts: Vec::new() };
    for (no, batch) in batches.iter().enumerate() {
        let synced = u32::try_from(built.bytes.len()).expect("small");
        built.starts.push(synced);
        for len in *batch {
            let at = u32::try_from(built.bytes.len()).expect("small");
            // Never what fills a lost page.
            let body = vec![u8::try_from(no + 1).expect("small"); *len];
            let append = |out: &mut Vec<u8>| out.extend_from_slice(&body);
            put_frame(&mut built.bytes, INCARNATION, at, synced, FrameKind::Entry, append);
            built.ends.push((u32::try_from(built.bytes.len()).expect("small"), no));
        }
    }
    built
}

fn verdict(bytes: &[u8]) -> Scan {
    scan(bytes, INCARNATION, FIRST, false)
}

#[test]
fn a_segment_cut_at_any_byte_ends_with_its_last_whole_frame() {
    let built = build(&[&[10], &[0, 30, 5], &[100]]);
    for len in FIRST as usize..=built.bytes.len() {
        for tail in [&[][..], &[0; 200], &[0xFF; 200]] {
            let mut cut = built.bytes[..len].to_vec();
            cut.extend_from_slice(tail);
            let found = verdict(&cut);
            let whole = built.ends.iter().filter(|(end, _)| *end as usize <= len).count();
            assert_eq!(found.entries.len(), whole, "cut at {len}");
            assert_eq!(found.end, built.ends[..whole].last().map_or(FIRST, |(end, _)| *end));
            assert!(found.damage.is_empty() && !found.sealed);
        }
    }
}

#[test]
fn a_flipped_byte_costs_its_frame_only_and_is_reported_when_it_was_durable() {
    let batches: [&[usize]; 4] = [&[10], &[0, 30, 5], &[20], &[40, 7]];
    let built = build(&batches);
    let whole = verdict(&built.bytes);
    assert_eq!(whole.entries.len(), 7);
    for at in FIRST as usize..built.bytes.len() {
        let mut flipped = built.bytes.clone();
        flipped[at] ^= 0x40;
        let found = verdict(&flipped);
        let hit = built.ends.iter().position(|(end, _)| at < *end as usize).expect("in a frame");
        let last_batch = batches.len() - 1;
        // That the last batch exists shows that those before it were durable: unless its only witness is hit.
        let is_durable = built.ends[hit].1 < last_batch;
        if is_durable {
            assert_eq!(found.entries.len(), 6, "byte {at}");
            assert_eq!(found.damage.len(), 1, "byte {at}");
            assert_eq!(found.end as usize, built.bytes.len());
        } else {
            assert_eq!(found.entries[..], whole.entries[..hit], "byte {at}");
            assert!(found.damage.is_empty(), "byte {at}");
        }
        for frame in &found.entries {
            assert!(whole.entries.contains(frame), "byte {at}: only what was written");
        }
    }
}

#[test]
fn a_page_lost_after_the_last_sync_costs_only_what_was_not_durable() {
    // The last batch spans several pages; what is lost of it is any one of them.
    let built = build(&[&[3_000], &[500, 2_000, 9_000, 700, 4_000, 100]]);
    let durable = built.starts[1] as usize;
    let whole = verdict(&built.bytes);
    for page in durable.div_ceil(4_096)..built.bytes.len().div_ceil(4_096) {
        for filler in [0, 0xA5] {
            let mut lost = built.bytes.clone();
            let range = page * 4_096..lost.len().min((page + 1) * 4_096);
            lost[range.clone()].fill(filler);
            let found = verdict(&lost);
            let before = built.ends.iter().filter(|(end, _)| *end as usize <= range.start).count();
            assert_eq!(found.entries, whole.entries[..before], "page {page}");
            assert!(found.damage.is_empty(), "page {page}");
            assert!(found.end as usize >= durable);
        }
    }
}

#[test]
fn frames_of_another_life_or_another_place_are_none() {
    let built = build(&[&[10, 10], &[10]]);
    assert!(scan(&built.bytes, INCARNATION + 1, FIRST, false).entries.is_empty());
    let mut moved = vec![0xEE; FIRST as usize + 27];
    moved.extend_from_slice(&built.bytes[FIRST as usize..]);
    assert!(verdict(&moved).entries.is_empty());
}

#[test]
fn a_frame_inside_a_payload_is_found_by_nobody_who_does_not_know_the_incarnation() {
    let mut forged = Vec::new();
    put_frame(&mut forged, 1, FIRST + 17, FIRST, FrameKind::Entry, |out| out.extend_from_slice(b"forged"));
    let mut bytes = vec![0; FIRST as usize];
    put_frame(&mut bytes, INCARNATION, FIRST, FIRST, FrameKind::Entry, |out| out.extend_from_slice(&forged));
    bytes[FIRST as usize] ^= 1;
    assert!(verdict(&bytes).entries.is_empty());
}

#[test]
fn nothing_behind_a_seal_is_believed_and_a_lost_seal_is_damage_once_others_follow() {
    let mut built = build(&[&[10], &[20]]);
    let end = u32::try_from(built.bytes.len()).expect("small");
    put_frame(&mut built.bytes, INCARNATION, end, built.starts[1], FrameKind::Seal, |_| {});
    let behind = u32::try_from(built.bytes.len()).expect("small");
    put_frame(&mut built.bytes, INCARNATION, behind, end, FrameKind::Entry, |_| {});
    let found = verdict(&built.bytes);
    assert!(found.sealed && found.end == end && found.entries.len() == 2);
    built.bytes.truncate(end as usize);
    assert!(verdict(&built.bytes).damage.is_empty(), "the newest segment may be without");
    assert_eq!(scan(&built.bytes, INCARNATION, FIRST, true).damage.len(), 1);
}
