//! How far two words are apart.
//!
//! Small on purpose: it decides "did you mean" and forgives a typing slip in a word of the vocabulary, never which
//! object a change acts on.

/// Damerau–Levenshtein distance (swapped neighbours count one), or `None` when it is above `limit`.
pub(super) fn distance_within(left: &str, right: &str, limit: usize) -> Option<usize> {
    let left: Vec<char> = left.chars().take(MAX_LENGTH).collect();
    let right: Vec<char> = right.chars().take(MAX_LENGTH).collect();
    if left.len().abs_diff(right.len()) > limit {
        return None;
    }
    let width = right.len() + 1;
    let mut before: Vec<usize> = vec![0; width];
    let mut above: Vec<usize> = (0..width).collect();
    let mut current: Vec<usize> = vec![0; width];
    for (i, left_char) in left.iter().enumerate() {
        current[0] = i + 1;
        for (j, right_char) in right.iter().enumerate() {
            let substitution = above[j] + usize::from(left_char != right_char);
            let mut best = substitution.min(above[j + 1] + 1).min(current[j] + 1);
            let swapped = i > 0 && j > 0 && *left_char == right[j - 1] && left[i - 1] == *right_char;
            if swapped {
                best = best.min(before[j - 1] + 1);
            }
            current[j + 1] = best;
        }
        std::mem::swap(&mut before, &mut above);
        std::mem::swap(&mut above, &mut current);
    }
    let distance = above[right.len()];
    (distance <= limit).then_some(distance)
}

/// Longer words are compared by their beginning; no name that a person types is longer.
const MAX_LENGTH: usize = 64;

/// How many slips a word of this length may hold.
pub(super) fn tolerance(length: usize) -> usize {
    match length {
        0..=3 => 0,
        4..=7 => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(distance_within("agnet", "agent", 1), Some(1));
        assert_eq!(distance_within("sandboxs", "sandbox", 2), Some(1));
        assert_eq!(distance_within("list", "list", 0), Some(0));
        assert_eq!(distance_within("triage", "source", 2), None);
        assert_eq!(distance_within("", "abc", 3), Some(3));
    }
}
