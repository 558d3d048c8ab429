//! Which droplet a name means, and what its object is called.

use sha2::{Digest, Sha256};

/// Names are the same in any case.
pub fn key(name: &str) -> String {
    name.to_lowercase()
}

/// An object's name for a droplet: the name in lower case, where that can be one.
pub fn object_name(droplet: &str) -> String {
    let name = key(droplet);
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let plain = name.chars().all(|c| good(c) || c == '-') && name.starts_with(good) && name.ends_with(good);
    if plain && name.len() <= 63 {
        return name;
    }
    let digest: String = Sha256::digest(&name).iter().take(5).map(|byte| format!("{byte:02x}")).collect();
    let words: String = name.chars().map(|c| if good(c) { c } else { '-' }).take(40).collect();
    format!("{}-{digest}", words.trim_matches('-')).trim_start_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_has_the_droplets_name_where_it_can() {
        assert_eq!(object_name("Registry"), "registry");
        assert_eq!(object_name("gpu-1"), "gpu-1");
        for odd in ["a b", "A_b", "é", "-", &"x".repeat(64), "a/../b"] {
            let name = object_name(odd);
            assert!(name.len() <= 63 && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
            assert!(!name.starts_with('-') && !name.ends_with('-'), "{odd}: {name}");
        }
        assert_ne!(object_name("a b"), object_name("a_b"));
    }
}
