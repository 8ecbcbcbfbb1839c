//! Two lists of lines side by side.

/// What two lists do not share.
#[derive(Debug, Default, PartialEq)]
pub struct Difference {
    /// Only the first has them, in its order.
    pub first: Vec<String>,
    /// Only the second.
    pub second: Vec<String>,
    /// Both have them, at other places among the rest.
    pub moved: Vec<String>,
}

/// As few lines as possible are out of order. O(n m) of what differs, after the lines at both ends
/// that do not.
pub fn difference(first: &[String], second: &[String]) -> Difference {
    let ahead = first.iter().zip(second).take_while(|(one, other)| one == other).count();
    let (first, second) = (&first[ahead..], &second[ahead..]);
    let pairs = first.iter().rev().zip(second.iter().rev());
    let behind = pairs.take_while(|(one, other)| one == other).count();
    let (first, second) = (&first[..first.len() - behind], &second[..second.len() - behind]);
    let mut found = Difference::default();
    let common = common(first, second);
    let (mut i, mut j) = (0, 0);
    while i < first.len() && j < second.len() {
        if first[i] == second[j] {
            (i, j) = (i + 1, j + 1);
        } else if common[i + 1][j] >= common[i][j + 1] {
            found.first.push(first[i].clone());
            i += 1;
        } else {
            found.second.push(second[j].clone());
            j += 1;
        }
    }
    found.first.extend_from_slice(&first[i..]);
    found.second.extend_from_slice(&second[j..]);
    let Difference { first, second, moved } = &mut found;
    first.retain(|line| match second.iter().position(|other| other == line) {
        Some(at) => {
            moved.push(second.remove(at));
            false
        }
        None => true,
    });
    found
}

/// How many lines the rests from each pair of places on have in common, in the same order.
fn common(first: &[String], second: &[String]) -> Vec<Vec<u32>> {
    let mut lengths = vec![vec![0; second.len() + 1]; first.len() + 1];
    for i in (0..first.len()).rev() {
        for j in (0..second.len()).rev() {
            lengths[i][j] = match first[i] == second[j] {
                true => lengths[i + 1][j + 1] + 1,
                false => lengths[i + 1][j].max(lengths[i][j + 1]),
            };
        }
    }
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(first: &str, second: &str) -> [String; 3] {
        let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let found = difference(&lines(first), &lines(second));
        [found.first, found.second, found.moved].map(|lines| lines.join(" "))
    }

    #[test]
    fn what_one_list_lacks_is_told() {
        assert_eq!(of("a b c", "a b c"), ["", "", ""]);
        assert_eq!(of("a b c", "a c"), ["b", "", ""]);
        assert_eq!(of("a c", "a b c d"), ["", "b d", ""]);
        assert_eq!(of("a b c", "a x c"), ["b", "x", ""]);
        assert_eq!(of("a a", "a"), ["a", "", ""]);
    }

    #[test]
    fn a_line_at_another_place_is_told_once() {
        assert_eq!(of("a b c d", "b c d a"), ["", "", "a"]);
        assert_eq!(of("a b c d x", "d a b c y"), ["x", "y", "d"]);
    }
}
