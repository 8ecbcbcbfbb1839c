//! A case that fails, with everything taken out that it fails without (delta debugging: Zeller
//! and Hildebrandt 2002, without its complements).

use super::step::Case;

/// `fails` is asked some hundred times at most.
pub fn shrink(
    case: Case,
    mut fails: impl FnMut(&Case) -> Result<bool, String>,
) -> Result<Case, String> {
    let mut case = case;
    let mut size = case.len().div_ceil(2);
    while size > 0 {
        let (mut from, mut shrunk) = (0, false);
        while from < case.len() {
            let mut less = case.clone();
            less.drain(from..(from + size).min(case.len()));
            if fails(&less)? {
                (case, shrunk) = (less, true);
            } else {
                from += size;
            }
        }
        if size > 1 {
            size /= 2;
        } else if !shrunk {
            break;
        }
    }
    Ok(case)
}
