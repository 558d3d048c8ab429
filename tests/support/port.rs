//! A port for a program that must be told one, and have it again after a restart.
//!
//! Not one that the kernel gave a moment ago: between asking and listening, any connection of a test beside may take it as its
//! own end. So these lie below the kernel's range for that (`net.ipv4.ip_local_port_range`, from 32768 on), and a locked file
//! keeps each for the process that took it.

use std::{fs::File, net::TcpListener, ops::RangeInclusive};

const PORTS: RangeInclusive<u16> = 20_000..=29_999;

/// On 127.0.0.1, nobody else's as long as this process lives.
pub fn own_port() -> u16 {
    let directory = std::env::temp_dir().join("gaia-test-ports");
    std::fs::create_dir_all(&directory).expect("a directory for the locks");
    for port in PORTS {
        let lock = File::create(directory.join(port.to_string())).expect("a file to lock");
        // A stranger may listen there as well.
        if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            // Until this process ends.
            std::mem::forget(lock);
            return port;
        }
    }
    panic!("each of the ports {PORTS:?} is taken");
}
