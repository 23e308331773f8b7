//! A control plane that has gone mad: it has the cluster's authority, so nodes believe who it is, and it
//! says whatever a test wants.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use cluster::map::Epoch;
use control::push::authority::Authority;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use wire::control::message::{FromControl, FromNode, Hello, MESSAGE_BYTES_MAX, VERSIONS};
use wire::frame::{self, Decoded};

use super::unix_now;
use crate::eventually::DEADLINE;

/// Listens where the cluster's control plane did.
pub struct Rogue {
    listener: TcpListener,
    tls: Arc<ServerConfig>,
}

impl Rogue {
    /// `folder` is the data directory of the control plane whose place it takes.
    ///
    /// # Panics
    /// When there is no authority, or somebody listens at the address.
    #[track_caller]
    pub fn start(folder: &Path, address: SocketAddr) -> Rogue {
        let authority = Authority::open(folder).expect("the folder is a control plane's");
        let (certificate, key) = authority.certify_control(unix_now()).expect("it can sign");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("ring speaks TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![certificate, authority.certificate().clone()], key)
            .expect("the certificate was made for the key");
        let listener = TcpListener::bind(address).expect("the control plane has ended");
        Rogue { listener, tls: Arc::new(tls) }
    }

    /// Waits until a node has introduced itself, and welcomes it.
    ///
    /// # Panics
    /// When what connects is no node.
    #[track_caller]
    pub fn welcome(&self) -> Visitor {
        let (socket, _) = self.listener.accept().expect("nodes try again and again");
        socket.set_read_timeout(Some(DEADLINE)).expect("it is no zero");
        let tls = ServerConnection::new(Arc::clone(&self.tls)).expect("the settings are good");
        let mut visitor =
            Visitor { stream: StreamOwned::new(tls, socket), inbox: Vec::new(), hello: None };
        match visitor.next() {
            Some(FromNode::Hello(hello)) => visitor.hello = Some(hello),
            other => panic!("a node begins with HELLO, not {other:?}"),
        }
        visitor.say(&FromControl::Welcome { version: VERSIONS.max });
        let Hello { revision, digest, .. } = *visitor.hello();
        visitor.say(&FromControl::Heartbeat { revision, digest, settled: Epoch::new(0) });
        // A heartbeat is answered; from then on the node believes that control is there.
        while !matches!(visitor.next().expect("it stays"), FromNode::Report(_)) {}
        visitor
    }
}

/// A node that has taken it for the control plane.
pub struct Visitor {
    stream: StreamOwned<ServerConnection, TcpStream>,
    inbox: Vec<u8>,
    hello: Option<Hello>,
}

impl Visitor {
    /// How it introduced itself.
    pub fn hello(&self) -> &Hello {
        self.hello.as_ref().expect("who did not introduce itself is not handed out")
    }

    pub fn say(&mut self, message: &FromControl) {
        let mut bytes = Vec::new();
        message.encode(VERSIONS.max, &mut bytes);
        self.send(&bytes);
    }

    /// # Panics
    /// When the node does not take it.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).and_then(|()| self.stream.flush()).expect("the node listens");
    }

    /// What it says next beside reports of how it is and what its caches count; `None` when it has closed the connection.
    ///
    /// # Panics
    /// When it says nothing in time, or something that is no message.
    #[track_caller]
    pub fn hear(&mut self) -> Option<FromNode> {
        loop {
            match self.next() {
                Some(FromNode::Report(_) | FromNode::Usage(_)) => (),
                other => return other,
            }
        }
    }

    #[track_caller]
    fn next(&mut self) -> Option<FromNode> {
        loop {
            let found = frame::decode(&self.inbox, MESSAGE_BYTES_MAX).expect("nodes send frames");
            if let Decoded::Frame { frame, consumed } = found {
                let message = FromNode::decode(&frame).expect("nodes send messages");
                self.inbox.drain(..consumed);
                return Some(message);
            }
            let mut chunk = [0; 4_096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(count) => self.inbox.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    panic!("the node neither answers nor goes")
                }
                // However it goes.
                Err(_) => return None,
            }
        }
    }
}
