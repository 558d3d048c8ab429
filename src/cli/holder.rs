//! Holders of cards as words of a command line: `gaia-prime`, `gaia-prime:candidate`, `lab/trainer`, `external:gaia-audio`.

use crate::api::{
    gpu::{Holder, HolderKind},
    workload::Variant,
};

use super::target::check_name;

const EXTERNAL: &str = "external:";

/// For clap.
pub fn parse(word: &str) -> Result<Holder, String> {
    let checked = |what, name: &str| match check_name(what, name) {
        Ok(()) if name.contains(':') => Err(format!("{name:?} cannot be the name of {what}")),
        Ok(()) => Ok(name.to_owned()),
        Err(e) => Err(e.to_string()),
    };
    if let Some(name) = word.strip_prefix(EXTERNAL) {
        return Ok(external(&checked("a holder", name)?));
    }
    let (namespace, rest) = word.split_once('/').unwrap_or(("default", word));
    let (name, variant) = match rest.split_once(':') {
        None | Some((_, "live")) => (rest.split(':').next().unwrap_or(rest), Variant::Live),
        Some((name, "candidate")) => (name, Variant::Candidate),
        Some((_, other)) => return Err(format!("a variant is live or candidate, not {other:?}")),
    };
    Ok(Holder {
        name: checked("a workload", name)?,
        kind: HolderKind::Workload,
        namespace: checked("a namespace", namespace)?,
        variant,
    })
}

pub fn external(name: &str) -> Holder {
    Holder {
        name: name.to_owned(),
        kind: HolderKind::External,
        namespace: "default".to_owned(),
        variant: Variant::Live,
    }
}

/// The live variant of a Workload in the namespace `default`.
pub fn live(name: &str) -> Holder {
    Holder {
        name: name.to_owned(),
        kind: HolderKind::Workload,
        namespace: "default".to_owned(),
        variant: Variant::Live,
    }
}

/// The word that [`parse`] understands.
pub fn word(holder: &Holder) -> String {
    if holder.kind == HolderKind::External {
        return format!("{EXTERNAL}{}", holder.name);
    }
    let within = match holder.namespace.as_str() {
        "default" => String::new(),
        namespace => format!("{namespace}/"),
    };
    match holder.variant {
        Variant::Live => format!("{within}{}", holder.name),
        Variant::Candidate => format!("{within}{}:candidate", holder.name),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("gaia-prime", "default/gaia-prime")]
    #[case("gaia-prime:candidate", "default/gaia-prime (candidate)")]
    #[case("lab/trainer", "lab/trainer")]
    #[case("external:gaia-audio", "gaia-audio (external)")]
    fn reads_every_form_and_writes_it_again(#[case] form: &str, #[case] meaning: &str) {
        let holder = parse(form).expect(form);
        assert_eq!(holder.to_string(), meaning);
        assert_eq!(word(&holder), form);
    }

    #[test]
    fn live_may_be_said() {
        assert_eq!(parse("lab/trainer:live"), parse("lab/trainer"));
    }

    #[rstest]
    #[case("")]
    #[case("external:")]
    #[case("a/b/c")]
    #[case("gaia-prime:canary")]
    #[case("external:a:b")]
    #[case("/x")]
    fn refuses_what_is_nobody(#[case] word: &str) {
        assert!(parse(word).is_err(), "{word:?}");
    }
}
