//! Names for quick tunnels: two plain, friendly words.

/// Adjectives, one on each line.
const FIRST: &str = include_str!("words/first.txt");
/// Nouns, one on each line.
const SECOND: &str = include_str!("words/second.txt");

/// Two random words with a hyphen between, such as `quiet-river`.
pub(crate) fn two() -> String {
    format!("{}-{}", pick(FIRST), pick(SECOND))
}

fn pick(words: &'static str) -> &'static str {
    let count = words.lines().count();
    words.lines().nth(rand::random_range(0..count)).expect("the index is below the count")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_words_are_many_distinct_and_fit_for_a_host_name() {
        for words in [FIRST, SECOND] {
            let distinct: BTreeSet<&str> = words.lines().collect();
            assert!(distinct.len() >= 128, "{}", distinct.len());
            assert_eq!(distinct.len(), words.lines().count());
            assert!(distinct.iter().all(|word| word.len() <= 9 && word.bytes().all(|byte| byte.is_ascii_lowercase())));
        }
        let names: BTreeSet<String> = (0..100).map(|_| two()).collect();
        assert!(names.len() > 90, "{names:?}");
    }
}
