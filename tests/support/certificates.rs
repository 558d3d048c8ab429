//! Certificates as somebody makes them at home, by an authority of their own: Debian's openssl, valid for two days.

use std::{path::PathBuf, process::Command};

/// A CA and what it signed, for a server and for its clients.
pub struct Certificates(tempfile::TempDir);

impl Certificates {
    /// `ca.pem`, and `server` and `client` each with `.pem` and `.key`, for 127.0.0.1.
    pub fn make() -> Self {
        let made = Self(tempfile::tempdir().expect("a directory"));
        std::fs::write(made.file("names"), "subjectAltName=IP:127.0.0.1").expect("written");
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        made.openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=ca -days 2"));
        for name in ["server", "client"] {
            made.openssl(&format!("req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
            let signed = format!("-CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem -days 2 -extfile names");
            made.openssl(&format!("x509 -req -in {name}.csr {signed}"));
        }
        made
    }

    fn openssl(&self, args: &str) {
        let made = Command::new("openssl").args(args.split(' ')).current_dir(self.0.path()).output();
        let made = made.expect("Debian's openssl is installed (./test does that)");
        assert!(made.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&made.stderr));
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}
