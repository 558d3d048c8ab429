//! Precedence, and whom a complaint names.

use super::*;

/// Reads settings from flags, variables and the text of a file.
fn settings(flags: &[(&'static str, &str)], variables: &[(&str, &str)], file: &str) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("gaia.yaml");
    fs::write(&path, file).expect("a file in it");
    let flags = flags.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
    let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
    Config::from_layers(&Layers::read(flags, Some(&path), &variable)?)
}

fn complaint(flags: &[(&'static str, &str)], variables: &[(&str, &str)], file: &str) -> String {
    settings(flags, variables, file).expect_err("must be refused").to_string()
}

#[test]
fn flag_wins_over_variable_wins_over_file() {
    let file = "listen: 127.0.0.1:1\nnodeName: from-file\nreality: simulated\n";
    let variables = [("GAIA_LISTEN", "127.0.0.1:2"), ("GAIA_NODE_NAME", "from-env")];
    let config = settings(&[("listen", "127.0.0.1:3")], &variables, file).expect("valid");
    assert_eq!(config.listen.port(), 3);
    assert_eq!(config.node_name, "from-env");
    assert_eq!(config.reality, Reality::Simulated);
}

#[test]
fn nothing_said_means_loopback_docker_and_the_state_directory() {
    let config = settings(&[], &[("HOME", "/home/x")], "").expect("valid");
    assert_eq!(config.listen, DEFAULT_LISTEN);
    assert_eq!(config.reality, Reality::Docker);
    assert_eq!(config.data_dir, Path::new("/home/x/.local/state/gaia"));
    assert_eq!((config.desired, config.nvml_library), (None, None));
    let named = settings(&[], &[("HOME", "/home/x"), ("GAIA_NVML_LIBRARY", "/opt/libnvidia-ml.so.1")], "");
    assert_eq!(named.expect("valid").nvml_library.as_deref(), Some(Path::new("/opt/libnvidia-ml.so.1")));
    let config = settings(&[], &[("HOME", "/home/x"), ("XDG_STATE_HOME", "/state")], "").expect("valid");
    assert_eq!(config.data_dir, Path::new("/state/gaia"));
}

#[test]
fn a_complaint_names_the_flag_the_variable_or_the_line() {
    assert!(complaint(&[("listen", "nowhere")], &[], "").starts_with("--listen: \"nowhere\""));
    assert!(complaint(&[], &[("GAIA_LISTEN", "nowhere")], "").starts_with("GAIA_LISTEN: "));
    let text = complaint(&[], &[], "# first\nnodeName: a\nlisten: nowhere\n");
    assert!(text.contains("gaia.yaml:3: listen: \"nowhere\""), "{text}");
    let text = complaint(&[], &[("GAIA_REALITY", "virtual")], "");
    assert_eq!(text, "GAIA_REALITY: \"virtual\" is not one of docker, simulated");
    let text = complaint(&[("nvmlLibrary", "libnvidia-ml.so.1")], &[], "");
    assert!(text.starts_with("--nvml-library: \"libnvidia-ml.so.1\" is not an absolute path"), "{text}");
    let text = complaint(&[("logLevel", "gaia=loudly")], &[], "");
    assert!(text.starts_with("--log-level: \"gaia=loudly\" is not a log filter"), "{text}");
}

#[test]
fn a_certificate_and_its_key_come_together() {
    let both = settings(&[("tlsCertFile", "/c"), ("tlsKeyFile", "/k")], &[], "").expect("valid").tls;
    assert_eq!(both, Some(TlsFiles { certificate: "/c".into(), key: "/k".into() }));
    assert_eq!(settings(&[], &[], "").expect("valid").tls, None);
    let text = complaint(&[("tlsCertFile", "/c")], &[], "");
    assert_eq!(text, "--tls-cert-file: a certificate needs its key: tlsKeyFile");
    let text = complaint(&[], &[("GAIA_TLS_KEY_FILE", "/k")], "");
    assert_eq!(text, "GAIA_TLS_KEY_FILE: a key needs its certificate: tlsCertFile");
}

#[test]
fn an_unknown_key_is_an_error_with_its_line() {
    let text = complaint(&[], &[], "listen: 127.0.0.1:1\n\ndata-dir: /x\n");
    assert!(text.contains("gaia.yaml:3: unknown key \"data-dir\"; the keys are listen, dataDir"), "{text}");
}

#[test]
fn a_file_that_is_no_mapping_is_an_error_with_its_line() {
    let text = complaint(&[], &[], "listen: 127.0.0.1:1\nlisten: 127.0.0.1:2\n");
    assert!(text.contains("gaia.yaml:2: "), "{text}");
    let text = complaint(&[], &[], "- listen\n");
    assert!(text.contains("gaia.yaml:1: "), "{text}");
}

#[test]
fn an_address_others_can_reach_needs_tokens() {
    let text = complaint(&[("listen", "0.0.0.0:6410")], &[], "");
    assert!(text.starts_with("--listen: 0.0.0.0:6410 can be reached"), "{text}");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let tokens = dir.path().join("tokens");
    fs::write(&tokens, "# for the team\nsecret-1\n\nsecret-2\n").expect("written");
    let flags = [("listen", "0.0.0.0:6410"), ("tokenFile", tokens.to_str().expect("UTF-8"))];
    let config = settings(&flags, &[], "").expect("valid");
    assert_eq!(config.tokens, [Token::new("secret-1"), Token::new("secret-2")]);
    assert!(!format!("{config:?}").contains("secret"), "a token was printed");
    fs::write(&tokens, "# nobody\n").expect("written");
    assert!(complaint(&flags, &[], "").contains("holds no token"));
}

#[test]
fn a_named_file_must_exist() {
    let Err(error) = Layers::read(Vec::new(), Some(Path::new("/nowhere/gaia.yaml")), &|_| None) else {
        panic!("read a file that is not there");
    };
    assert_eq!(error.to_string(), "cannot read /nowhere/gaia.yaml (--config)");
    let text = complaint(&[("desired", "/nowhere")], &[], "");
    assert_eq!(text, "cannot read /nowhere (--desired)");
}

#[test]
fn every_key_has_a_flag_and_a_variable() {
    assert_eq!(flag_name("dataDir"), "--data-dir");
    assert_eq!(variable_name("tokenFile"), "GAIA_TOKEN_FILE");
}

#[test]
fn settings_of_gaias_own_orchestrator_are_taken_where_they_mean_something() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("orchestrator.yaml");
    fs::write(
        &file,
        "port: 7001\ngpu_cleanup_threshold_mb: 3000\nweb_url: http://from-file:6414\nstate_dir: /shared/x\n",
    )
    .expect("written");
    let file = file.to_str().expect("UTF-8");
    let variables = [("ORCHESTRATOR_CONFIG", file), ("ORCHESTRATOR_WEB_URL", "http://gaia-web:6414")];
    let config = settings(&[], &variables, "").expect("valid");
    assert_eq!(config.listen.to_string(), "127.0.0.1:7001");
    assert_eq!(config.orchestrator.web_url.as_deref(), Some("http://gaia-web:6414"), "the environment wins");
    assert_eq!(config.orchestrator.state_file.as_deref(), Some(Path::new("/shared/x/state.json")));
    let config = settings(&[], &variables, "listen: 127.0.0.1:1\n").expect("valid");
    assert_eq!(config.listen.port(), 1, "our own settings win");
    let text = complaint(&[], &[("ORCHESTRATOR_HOST", "0.0.0.0")], "");
    assert!(text.starts_with("ORCHESTRATOR_HOST: 0.0.0.0:6410 can be reached"), "{text}");
}
