//! The completion indexes of a Job, as its status writes them: `1,3-5,7` (KEP-2214,
//! pkg/controller/job/indexed_job_utils.go).

use crate::objects::Object;
use std::collections::BTreeSet;
use std::fmt::Write;

/// Both an annotation and a label of an Indexed Job's pods.
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// Reads what [`text`] writes; what is no number or not below `end` is passed over.
pub fn parse(text: &str, end: i32) -> BTreeSet<i32> {
    let mut all = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
            all.extend(first.max(0)..=last.min(end - 1));
        }
    }
    all
}

/// Three or more in a row become a range.
pub fn text(indexes: &BTreeSet<i32>) -> String {
    let mut out = String::new();
    let mut rest = indexes.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        while let Some(next) = rest.next_if_eq(&(last + 1)) {
            last = next;
        }
        let comma = if out.is_empty() { "" } else { "," };
        // Writing to a string does not fail.
        let _ = match last - first {
            0 => write!(out, "{comma}{first}"),
            1 => write!(out, "{comma}{first},{last}"),
            _ => write!(out, "{comma}{first}-{last}"),
        };
    }
    out
}

/// The pod's completion index; `None` if it has none below `end`.
pub fn of(pod: &Object, end: i32) -> Option<i32> {
    let index = pod.annotation(INDEX)?.parse().ok()?;
    (0..end).contains(&index).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_written_as_upstream_writes_them_and_read_back() {
        for (indexes, written) in [
            (&[][..], ""),
            (&[0], "0"),
            (&[0, 1], "0,1"),
            (&[0, 1, 2, 5, 7, 8], "0-2,5,7,8"),
            (&[3, 4, 5, 6], "3-6"),
        ] {
            let all = BTreeSet::from_iter(indexes.iter().copied());
            assert_eq!(text(&all), written);
            assert_eq!(parse(written, 10), all);
        }
        assert_eq!(parse("1-9,x,12", 5), BTreeSet::from([1, 2, 3, 4]), "what is beyond the end");
    }
}
