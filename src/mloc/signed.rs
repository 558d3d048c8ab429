//! What opens one thing for a while, where callers must show a token that not everybody should have. URLs of artifacts: The archive of one stage is loaded by the next with nothing but the URL, so where
//! callers must show a token that URL gets a signature: over the task, the file and an end, keyed with the token.

use jiff::{SignedDuration, Timestamp};
use percent_encoding::percent_decode_str;
use ring::hmac;

/// A worker loads what it needs when it begins.
const OPEN_FOR: SignedDuration = SignedDuration::from_hours(1);
/// A worker may be at a task for weeks. What it delivers then still has to be of the attempt that counts.
const PASS_FOR: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Before what is signed, so that the key means nothing elsewhere.
const PURPOSE: &str = "gaia.dev/artifact";
const PASS: &str = "gaia.dev/results";

/// Clones sign alike.
#[derive(Debug, Clone)]
pub struct Signer(hmac::Key);

impl Signer {
    pub fn new(token: &str) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes()))
    }

    /// The URL of a file of this task, with a signature. None: it is no such URL, or carries a query of its own.
    pub fn sign(&self, url: &str, task: &str, now: Timestamp) -> Option<String> {
        let (_, name) = url.split_once(&format!("/api/v1/results/{task}/files/"))?;
        if !(url.starts_with("http://") || url.starts_with("https://")) || name.contains(['/', '?', '#']) {
            return None;
        }
        let name = percent_decode_str(name).decode_utf8().ok()?;
        let expires = now.saturating_add(OPEN_FOR).unwrap_or(Timestamp::MAX).as_second();
        let signature = hmac::sign(&self.0, message(task, &name, expires).as_bytes());
        Some(format!("{url}?expires={expires}&signature={}", hex(signature.as_ref())))
    }

    /// A bearer token with which results and files of this task can be delivered, and nothing else done.
    pub fn pass(&self, task: &str, now: Timestamp) -> String {
        let expires = now.saturating_add(PASS_FOR).unwrap_or(Timestamp::MAX).as_second();
        let signature = hmac::sign(&self.0, pass_message(task, expires).as_bytes());
        format!("{expires}.{}.{task}", hex(signature.as_ref()))
    }

    /// The task for which a bearer token is such a pass.
    pub fn passes<'p>(&self, pass: &'p str, now: Timestamp) -> Option<&'p str> {
        let mut parts = pass.splitn(3, '.');
        let expires: i64 = parts.next()?.parse().ok().filter(|expires| *expires > now.as_second())?;
        let (signature, task) = (bytes(parts.next()?)?, parts.next()?);
        hmac::verify(&self.0, pass_message(task, expires).as_bytes(), &signature).ok().map(|()| task)
    }

    /// Whether a signature opens this file of this task now.
    pub fn opens(&self, task: &str, name: &str, expires: i64, signature: &str, now: Timestamp) -> bool {
        let Some(signature) = bytes(signature) else { return false };
        expires > now.as_second() && hmac::verify(&self.0, message(task, name, expires).as_bytes(), &signature).is_ok()
    }
}

fn message(task: &str, name: &str, expires: i64) -> String {
    // Neither an id nor a file name holds a zero byte.
    format!("{PURPOSE}\0{task}\0{name}\0{expires}")
}

fn pass_message(task: &str, expires: i64) -> String {
    format!("{PASS}\0{task}\0{expires}")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let whole = hex.len().is_multiple_of(2) && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).ok();
    whole.then(|| (0..hex.len()).step_by(2).map(byte).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("a time")
    }

    #[test]
    fn a_signature_opens_one_file_for_an_hour() {
        let signer = Signer::new("dev-token");
        let url = signer.sign("http://h:8000/api/v1/results/t1/files/a%20b.zip", "t1", at(0)).expect("it is one");
        let (path, query) = url.split_once("?expires=").expect("it expires");
        assert!(path.ends_with("a%20b.zip"));
        let (expires, signature) = query.split_once("&signature=").expect("it is signed");
        let expires: i64 = expires.parse().expect("a number");
        assert!(signer.opens("t1", "a b.zip", expires, signature, at(3599)));
        assert!(!signer.opens("t1", "a b.zip", expires, signature, at(3600)));
        assert!(!signer.opens("t1", "other", expires, signature, at(0)));
        assert!(!signer.opens("t2", "a b.zip", expires, signature, at(0)));
        assert!(!signer.opens("t1", "a b.zip", expires + 1, signature, at(0)));
        assert!(
            !signer.opens("t1", "a b.zip", expires, "zz", at(0)) && !signer.opens("t1", "a b.zip", expires, "é", at(0))
        );
        assert!(!Signer::new("other").opens("t1", "a b.zip", expires, signature, at(0)));
    }

    #[test]
    fn a_pass_is_for_one_task() {
        let signer = Signer::new("dev-token");
        let pass = signer.pass("ns/t.1-0", at(0));
        assert_eq!(signer.passes(&pass, at(0)), Some("ns/t.1-0"));
        assert_eq!(signer.passes(&pass, at(30 * 24 * 3600)), None);
        for other in [pass.replace("t.1-0", "t.1-1"), format!("1{pass}"), "dev-token".to_owned(), String::new()] {
            assert_eq!(signer.passes(&other, at(0)), None, "{other}");
        }
        assert_eq!(Signer::new("other").passes(&pass, at(0)), None);
    }

    #[test]
    fn what_is_no_url_of_the_task_is_not_signed() {
        let signer = Signer::new("dev-token");
        for url in [
            "http://h/api/v1/results/t2/files/a.zip",
            "http://h/api/v1/results/t1/files/a/b",
            "http://h/api/v1/results/t1/files/a?x=1",
            "see /api/v1/results/t1/files/a.zip",
            "plain",
        ] {
            assert_eq!(signer.sign(url, "t1", at(0)), None, "{url}");
        }
    }
}
