//! `Activation`: the sockets that were passed to this process when it was started.

use std::sync::{Arc, Mutex, PoisonError};

use socket2::Type;

use super::OPERATION;
use super::item::{Item, Unowned, is_file_of};
use super::note::{
    self, HANDOVER, LISTEN_FDNAMES, LISTEN_FDS, LISTEN_PID, LISTEN_PIDFDID, Note, READY_REPORT,
};
#[cfg(feature = "datagram")]
use crate::datagram::DatagramSocket;
use crate::io::deadline::Deadline;
use crate::listener::{ServerSocket, is_ipv6_missing};
use crate::log;
use crate::options::SocketOptions;
use crate::options::deferred::DeferredOptions;
use crate::resolve::resolve;
use crate::socket_file::{FileOwnership, InheritedSocket, SocketFile};
use crate::stream::ClientSocket;
use crate::sys::{self, FIRST_INHERITED, StartedWith, Wait};
use crate::types::address::{Address, Family};
use crate::types::endpoint::{Endpoint, Host, Port, Target};
use crate::types::error::{Error, ErrorKind, Result};

const LISTEN: &str = "listen";
#[cfg(feature = "datagram")]
const BIND: &str = "bind";
const READY: &str = "ready";

/// The sockets that were passed to this process when it was started: by systemd or another service
/// manager that uses the same protocol (`LISTEN_FDS`, sd_listen_fds(3)), or by a predecessor that
/// this process replaces ([`Handover`](crate::Handover)).
///
/// With [`listen`](Activation::listen), or [`bind`](Activation::bind) for datagrams, a server can
/// be started in three ways without a difference in its code: from a shell, by socket activation,
/// and as a successor.
///
/// Dropping the object closes the listening sockets and datagram sockets that no call has adopted.
/// Descriptors that are not sockets (a FIFO, a file) stay unchanged. A connection, which systemd
/// passes with `Accept=yes`, belongs to this process only after [`client`](Activation::client) has
/// adopted it. A program may instead use the descriptor with [`ClientSocket::from_owned`].
///
/// ```
/// use keepsock::{Activation, SocketOptions};
/// let mut activation = Activation::from_env()?;
/// let server = activation.listen("127.0.0.1:0", &SocketOptions::new())?;
/// # #[cfg(feature = "serve")]
/// let service = server.serve(|client| {
///     let _ = client.write_all(b"hello\n");
/// })?;
/// activation.ready()?;   // a predecessor may exit now
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Activation {
    items: Vec<Item>,
    unowned: Vec<Unowned>,
    /// The socket to the predecessor.
    channel: Option<sys::Owned>,
    /// Whether this process removes the files of inherited Unix sockets.
    ownership: Arc<FileOwnership>,
    /// The options that are set when this process is ready. Until then the predecessor may
    /// continue, and the options would also apply to it.
    deferred: Vec<Box<dyn DeferredOptions>>,
}

impl Activation {
    /// The environment variables that [`from_env`](Activation::from_env) reads.
    ///
    /// A program that executes itself again keeps its process number, so the variables still name
    /// it although no process passes sockets to it. Remove each variable with
    /// `std::env::remove_var` before that.
    ///
    /// ```
    /// assert!(keepsock::Activation::variables().contains(&"LISTEN_FDS"));
    /// ```
    pub const fn variables() -> [&'static str; 5] {
        [LISTEN_PID, LISTEN_PIDFDID, LISTEN_FDS, LISTEN_FDNAMES, HANDOVER]
    }

    /// Takes the descriptors that were passed to this process. A second call returns an empty
    /// object. The [variables](Activation::variables) stay unchanged. The descriptors become
    /// close-on-exec.
    ///
    /// The object is empty if `LISTEN_PID` or `LISTEN_PIDFDID` names another process. It is also
    /// empty if none of the descriptors that `LISTEN_FDS` promises was passed; a log event then
    /// says why. A descriptor was not passed if it is closed, or if it is close-on-exec, because
    /// then this program has opened it. The variables are leftovers in both cases, for example of
    /// a program that has executed itself again.
    ///
    /// Call this function early, and before sd_listen_fds(3), which makes the descriptors
    /// close-on-exec. A socket that the program itself has opened without close-on-exec cannot be
    /// distinguished from a socket that was passed. On Windows the object is always empty.
    ///
    /// # Errors
    /// No descriptor is taken.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): a variable is not a number or not valid
    ///   UTF-8, `LISTEN_FDNAMES` does not have one name for each descriptor, or only some of the
    ///   descriptors were passed.
    /// - [`Os`](ErrorKind::Os): the operating system failed to report the kind of a descriptor.
    ///
    /// ```
    /// let activation = keepsock::Activation::from_env()?;
    /// for name in activation.names() {
    ///     println!("{name}");
    /// }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn from_env() -> Result<Activation> {
        static TAKEN: Mutex<bool> = Mutex::new(false);
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        if *taken {
            return Ok(Activation::default());
        }
        let invalid = |what: String| Error::new(ErrorKind::InvalidArgument, OPERATION).detail(what);
        let variables = Activation::variables().map(std::env::var_os);
        let own = (std::process::id(), sys::own_pidfd_inode);
        let parsed = note::parse(variables.each_ref().map(Option::as_deref), own);
        let Some((names, note)) = parsed.map_err(invalid)? else {
            return Ok(Activation::default());
        };
        let note = note.filter(|note| sys::identity_of(note.ready) == Some(note.channel));
        let numbers = FIRST_INHERITED..FIRST_INHERITED + names.len() as u32;
        let mut missing = numbers.clone().filter_map(|n| Some((n, sys::check_passed(n).err()?)));
        if let Some((number, e)) = missing.next() {
            let what = format!("{LISTEN_FDS} is {}, but descriptor {number}: {e}", names.len());
            if 1 + missing.count() == names.len() {
                log::activation_ignored(&what);
                return Ok(Activation::default());
            }
            return Err(invalid(what).with_os_error(e.raw_os_error()));
        }
        *taken = true;
        Activation::take(numbers.zip(names), note).map_err(|e| Error::os(OPERATION, &e))
    }

    /// Takes descriptors that were passed, with their numbers and names.
    fn take(
        descriptors: impl Iterator<Item = (u32, String)>,
        note: Option<Note>,
    ) -> std::io::Result<Activation> {
        let mut activation = Activation::default();
        let ready = note.as_ref().map(|note| note.ready);
        activation.channel = ready.map(sys::take_inherited).transpose()?;
        let (ephemeral_ports, mut files) =
            note.map(|note| (note.ephemeral_ports, note.files)).unwrap_or_default();
        for (index, (number, name)) in descriptors.enumerate() {
            match sys::look_at_passed(number)? {
                StartedWith::Taken(socket) => {
                    let file = files.iter().position(|file| file.index == index);
                    let file = file.map(|at| files.swap_remove(at));
                    let file = file.filter(|file| is_file_of(&socket, &file.path));
                    let ownership = || activation.ownership.clone();
                    let file = file.map(|f| SocketFile::inherited(f.path, f.identity, ownership()));
                    let ephemeral_port = ephemeral_ports.contains(&index);
                    let adopted = InheritedSocket { file, socket, ephemeral_port };
                    activation.items.push(Item { number, name, adopted });
                }
                StartedWith::Left { what, connection } => {
                    let description = what;
                    activation.unowned.push(Unowned { number, name, description, connection });
                }
            }
        }
        Ok(activation)
    }

    /// Returns the inherited listening socket that is bound to the endpoint. If there is none, it
    /// listens on the endpoint with [`handover`](SocketOptions::handover). The options apply in
    /// both cases.
    ///
    /// - `*:80` matches a socket that accepts IPv4 and IPv6, `[::]:80` a socket that accepts IPv6
    ///   only.
    /// - Port 0 matches a listener whose port was assigned by the kernel in the first process of
    ///   the chain. It never matches a socket passed by a service manager.
    /// - A UDP socket is not matched. A Unix socket is not matched if its path now names a
    ///   different file.
    ///
    /// The options of a socket that a predecessor handed over are set by
    /// [`ready`](Activation::ready), because the predecessor has the same listening socket. If
    /// this process fails before that, nothing has changed for the predecessor. Connections
    /// accepted before [`ready`](Activation::ready) have the predecessor's options. The
    /// [`backlog`](SocketOptions::backlog) stays unchanged if the options have none. The mode and
    /// the owner of an inherited Unix socket's file always stay unchanged.
    ///
    /// # Errors
    /// The inherited sockets stay in this object.
    /// - [`WrongState`](ErrorKind::WrongState): the inherited socket is a stream socket and the
    ///   options request [`seqpacket`](SocketOptions::seqpacket), or the reverse; or the options
    ///   request [`mptcp`](SocketOptions::mptcp) and it was created without it.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): an option is out of range, or does not
    ///   apply to a listening socket of this kind. The error names the option.
    /// - [`InvalidEndpoint`](ErrorKind::InvalidEndpoint): the text is not an endpoint, a
    ///   link-local IPv6 address has no zone, or this machine does not have the zone or the
    ///   [`interface`](SocketOptions::interface).
    /// - [`AddressInUse`](ErrorKind::AddressInUse): another socket is bound to the address and
    ///   port or to the Unix path, or no local port is free for port 0.
    /// - [`AddressNotAvailable`](ErrorKind::AddressNotAvailable): the address does not belong to
    ///   this machine.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied): the process may not bind the port or
    ///   write to the directory of the Unix path.
    /// - [`NotFound`](ErrorKind::NotFound): the host or service name, or the directory of the Unix
    ///   path, does not exist.
    /// - [`LookupFailed`](ErrorKind::LookupFailed): the resolver could not answer.
    /// - [`TimedOut`](ErrorKind::TimedOut): the name lookup took longer than the
    ///   [`connect_timeout`](SocketOptions::connect_timeout).
    /// - [`Cancelled`](ErrorKind::Cancelled): the token was fired during the name lookup.
    /// - [`NoDescriptors`](ErrorKind::NoDescriptors): the process or the system has no descriptor
    ///   left.
    /// - [`NoMemory`](ErrorKind::NoMemory): the system has no memory or no thread left.
    /// - [`Unsupported`](ErrorKind::Unsupported): the platform or the kernel does not have this
    ///   kind of socket or an option that was set.
    /// - [`Os`](ErrorKind::Os): another error of the operating system.
    ///
    /// ```
    /// # use keepsock::{Activation, SocketOptions};
    /// let mut activation = Activation::from_env()?;
    /// let server = activation.listen("*:0", &SocketOptions::new())?;
    /// println!("listening on {}", server.endpoint());
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn listen<E>(&mut self, endpoint: E, options: &SocketOptions) -> Result<ServerSocket>
    where
        E: TryInto<Endpoint>,
        Error: From<E::Error>,
    {
        let endpoint = endpoint.try_into().map_err(|e| Error::from(e).during(LISTEN))?;
        self.listen_at(endpoint, options)
    }

    fn listen_at(&mut self, endpoint: Endpoint, options: &SocketOptions) -> Result<ServerSocket> {
        options.validate(LISTEN)?;
        options.refuse_client_only(LISTEN)?;
        let kind = (Type::STREAM, LISTEN);
        let is_wanted = |item: &Item| item.is_listener_for(options.seqpacket);
        if let Some((_, item)) = self.find_bound(&endpoint, options, kind, is_wanted)? {
            let number = item.number;
            return self
                .adopt(&options.for_inherited(&endpoint), |item| item.number == number)
                .map_err(|e| e.during(LISTEN).at(&endpoint));
        }
        // A stream listener and a seqpacket listener can have the same abstract name. A new
        // listener would then be created, and no process would accept from the inherited one.
        let other = match &endpoint.0 {
            Target::Inet { .. } => None,
            _ => self.find_bound(&endpoint, options, kind, Item::is_listener)?,
        };
        if let Some((_, other)) = other {
            return Err(other.wrong_kind().during(LISTEN).at(&endpoint));
        }
        ServerSocket::listen_with(endpoint, &options.clone().handover(true))
    }

    /// Returns all inherited listening sockets with this name as one server. The name is the
    /// `FileDescriptorName=` of systemd or the name that the predecessor chose. It is "unknown" if
    /// none was set. The options are set as by [`listen`](Activation::listen).
    ///
    /// Datagram sockets with the same name stay in this object, for
    /// [`datagram`](Activation::datagram). systemd gives all sockets of a unit the same name.
    ///
    /// # Errors
    /// The sockets stay in this object.
    /// - [`NotFound`](ErrorKind::NotFound): no descriptor has this name.
    /// - [`WrongState`](ErrorKind::WrongState): one of the descriptors is neither a listening
    ///   socket nor a datagram socket, or all are datagram sockets. The error says what the
    ///   descriptor is. Also if stream and seqpacket sockets are mixed, or if the options request
    ///   [`seqpacket`](SocketOptions::seqpacket) or [`mptcp`](SocketOptions::mptcp) and a socket
    ///   was created without it.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): an option is out of range, or does not
    ///   apply to a listening socket of this kind. The error names the option.
    /// - [`Unsupported`](ErrorKind::Unsupported): the platform or the kernel does not have an
    ///   option that was set.
    /// - [`NoDescriptors`](ErrorKind::NoDescriptors): the process or the system has no descriptor
    ///   left.
    /// - [`NoMemory`](ErrorKind::NoMemory): the system has no memory left.
    /// - [`Os`](ErrorKind::Os): another error of the operating system.
    ///
    /// ```
    /// # use keepsock::{Activation, ErrorKind, SocketOptions};
    /// let mut activation = Activation::from_env()?;
    /// match activation.server("http", &SocketOptions::new()) {
    ///     Ok(server) => println!("{}", server.endpoint()),
    ///     Err(e) if e.kind() == ErrorKind::NotFound => println!("not started by systemd"),
    ///     Err(e) => return Err(e),
    /// }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn server(&mut self, name: &str, options: &SocketOptions) -> Result<ServerSocket> {
        options.refuse_client_only(OPERATION)?;
        let first_is_wrong = self.require_name(name)?;
        let named = || self.items.iter().filter(|item| item.name == name);
        if let Some(unowned) = self.unowned.iter().find(|unowned| unowned.name == name) {
            return Err(unowned.wrong_kind());
        }
        let wrong = named().find(|item| !item.is_listener() && !item.is_datagram());
        if let Some(item) = wrong {
            return Err(item.wrong_kind());
        }
        if !named().any(Item::is_listener) {
            return Err(first_is_wrong);
        }
        self.adopt(options, |item| item.name == name && item.is_listener())
            .map_err(|e| e.during(OPERATION))
    }

    /// Returns the first inherited datagram socket with this name, UDP or Unix. Descriptors of
    /// another kind with the same name are skipped.
    ///
    /// The options are set immediately. A predecessor has the same socket, so they also apply to
    /// its calls from now on. One option is set later, by [`ready`](Activation::ready):
    /// [`udp_gro`](SocketOptions::udp_gro) on a socket that a predecessor handed over. A
    /// predecessor that did not set `udp_gro` would receive several datagrams as one. Set
    /// `udp_gro` in both processes, or make the predecessor stop receiving as soon as this process
    /// is ready.
    ///
    /// # Errors
    /// The socket stays in this object.
    /// - [`NotFound`](ErrorKind::NotFound): no descriptor has this name.
    /// - [`WrongState`](ErrorKind::WrongState): no descriptor with this name is a datagram socket.
    ///   The error says what the first one is.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): an option is out of range, or does not
    ///   apply to a datagram socket of this kind. The error names the option.
    /// - [`Unsupported`](ErrorKind::Unsupported): the platform or the kernel does not have an
    ///   option that was set.
    /// - [`NoDescriptors`](ErrorKind::NoDescriptors): the process or the system has no descriptor
    ///   left.
    /// - [`NoMemory`](ErrorKind::NoMemory): the system has no memory left.
    /// - [`Os`](ErrorKind::Os): another error of the operating system.
    ///
    /// ```
    /// # use keepsock::{Activation, SocketOptions};
    /// let mut activation = Activation::from_env()?;
    /// if let Ok(socket) = activation.datagram("dns", &SocketOptions::new()) {
    ///     println!("{}", socket.endpoint());
    /// }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[cfg(feature = "datagram")]
    pub fn datagram(&mut self, name: &str, options: &SocketOptions) -> Result<DatagramSocket> {
        let first_is_wrong = self.require_name(name)?;
        let is_wanted = |item: &Item| item.name == name && item.is_datagram();
        match self.items.iter().position(is_wanted) {
            Some(index) => self.adopt_datagram(index, options).map_err(|e| e.during(OPERATION)),
            None => Err(first_is_wrong),
        }
    }

    /// Returns the first inherited connection with this name, and sets the options on it. systemd
    /// passes a connection with `Accept=yes`, under the name "connection". Descriptors of another
    /// kind with the same name are skipped.
    ///
    /// A connection that no call adopts stays open, and the program may use its descriptor.
    ///
    /// # Errors
    /// The connection stays in this object.
    /// - [`NotFound`](ErrorKind::NotFound): no descriptor has this name.
    /// - [`WrongState`](ErrorKind::WrongState): no descriptor with this name is a connection, and
    ///   the error says what the first one is; or the program has closed the descriptor.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): an option is out of range, or does not
    ///   apply to a connection of this kind. The error names the option.
    /// - [`Unsupported`](ErrorKind::Unsupported): the platform or the kernel does not have an
    ///   option that was set.
    /// - [`NoDescriptors`](ErrorKind::NoDescriptors): the process or the system has no descriptor
    ///   left.
    /// - [`NoMemory`](ErrorKind::NoMemory): the system has no memory left.
    /// - [`Os`](ErrorKind::Os): another error of the operating system.
    ///
    /// ```
    /// # use keepsock::{Activation, SocketOptions};
    /// let mut activation = Activation::from_env()?;
    /// if let Ok(client) = activation.client("connection", &SocketOptions::new()) {
    ///     client.write_all(b"hello\n")?;
    /// }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn client(&mut self, name: &str, options: &SocketOptions) -> Result<ClientSocket> {
        let first_is_wrong = self.require_name(name)?;
        let found = self.unowned.iter().enumerate().find_map(|(index, unowned)| {
            Some((index, unowned.number, unowned.connection.filter(|_| unowned.name == name)?))
        });
        let Some((index, number, connection)) = found else {
            return Err(first_is_wrong);
        };
        if sys::identity_of(number) != Some(connection) {
            let what = format!("descriptor {number} is closed, or is another file now");
            return Err(Error::new(ErrorKind::WrongState, OPERATION).detail(what));
        }
        let socket = sys::take_inherited(number).map_err(|e| Error::os(OPERATION, &e))?;
        match ClientSocket::from_owned(socket, options) {
            Ok(client) => {
                self.unowned.remove(index);
                Ok(client)
            }
            Err((socket, e)) => {
                sys::leave(socket);
                Err(e.during(OPERATION))
            }
        }
    }

    /// Returns the inherited datagram socket, UDP or Unix, that is bound to the endpoint and not
    /// connected. If there is none, it binds a socket with [`handover`](SocketOptions::handover).
    /// Endpoints match sockets as in [`listen`](Activation::listen).
    ///
    /// The options apply in both cases, as in [`datagram`](Activation::datagram). An inherited UDP
    /// socket stays on the interface that it was bound to.
    ///
    /// # Errors
    /// The inherited sockets stay in this object.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): an option is out of range, or does not
    ///   apply to a datagram socket of this kind. The error names the option.
    /// - [`InvalidEndpoint`](ErrorKind::InvalidEndpoint): the text is not an endpoint, a
    ///   link-local IPv6 address has no zone, or this machine does not have the zone or the
    ///   [`interface`](SocketOptions::interface).
    /// - [`AddressInUse`](ErrorKind::AddressInUse): another socket is bound to the address and
    ///   port or to the Unix path, or no local port is free for port 0.
    /// - [`AddressNotAvailable`](ErrorKind::AddressNotAvailable): the address does not belong to
    ///   this machine.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied): the process may not bind the port or
    ///   write to the directory of the Unix path.
    /// - [`NotFound`](ErrorKind::NotFound): the host or service name, or the directory of the Unix
    ///   path, does not exist.
    /// - [`LookupFailed`](ErrorKind::LookupFailed): the resolver could not answer.
    /// - [`TimedOut`](ErrorKind::TimedOut): the name lookup took longer than the
    ///   [`connect_timeout`](SocketOptions::connect_timeout).
    /// - [`Cancelled`](ErrorKind::Cancelled): the token was fired during the name lookup.
    /// - [`NoDescriptors`](ErrorKind::NoDescriptors): the process or the system has no descriptor
    ///   left.
    /// - [`NoMemory`](ErrorKind::NoMemory): the system has no memory or no thread left.
    /// - [`Unsupported`](ErrorKind::Unsupported): the platform or the kernel does not have this
    ///   kind of socket or an option that was set.
    /// - [`Os`](ErrorKind::Os): another error of the operating system.
    ///
    /// ```
    /// # use keepsock::{Activation, SocketOptions};
    /// # if cfg!(windows) { return Ok(()) }
    /// let mut activation = Activation::from_env()?;
    /// let socket = activation.bind("*:0", &SocketOptions::new())?;
    /// println!("bound to {}", socket.endpoint());
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[cfg(feature = "datagram")]
    pub fn bind<E>(&mut self, endpoint: E, options: &SocketOptions) -> Result<DatagramSocket>
    where
        E: TryInto<Endpoint>,
        Error: From<E::Error>,
    {
        let endpoint = endpoint.try_into().map_err(|e| Error::from(e).during(BIND))?;
        self.bind_at(endpoint, options)
    }

    #[cfg(feature = "datagram")]
    fn bind_at(&mut self, endpoint: Endpoint, options: &SocketOptions) -> Result<DatagramSocket> {
        options.validate(BIND)?;
        options.refuse_client_only(BIND)?;
        let kind = (Type::DGRAM, BIND);
        match self.find_bound(&endpoint, options, kind, Item::is_unconnected_datagram)? {
            Some((index, _)) => {
                let mut options = options.for_inherited(&endpoint);
                if matches!(&endpoint.0, Target::Inet { .. }) {
                    // These options have already selected the socket.
                    (options.family, options.interface) = (Family::Any, None);
                    options.preferred_family = Family::Any;
                }
                self.adopt_datagram(index, &options).map_err(|e| e.during(BIND).at(&endpoint))
            }
            None => DatagramSocket::bind_with(endpoint, &options.clone().handover(true)),
        }
    }

    /// The names of the sockets that no call has adopted yet, in the order of their descriptors.
    ///
    /// ```
    /// let activation = keepsock::Activation::from_env()?;
    /// assert_eq!(activation.names().len(), 0);   // this example is not started by systemd
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        let connections = self.unowned.iter().filter(|unowned| unowned.connection.is_some());
        let connections = connections.map(|one| (one.number, one.name.as_str()));
        let items = self.items.iter().map(|item| (item.number, item.name.as_str()));
        let mut all: Vec<_> = items.chain(connections).collect();
        all.sort_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, name)| name)
    }

    /// Notifies the predecessor, if there is one, that this process serves. The predecessor then
    /// stops accepting. Call it after every step that may fail. If this process exits or drops
    /// this object before, the predecessor continues unchanged. A second call has no effect.
    ///
    /// Immediately before the notification, servers that were handed over get their options, and
    /// datagram sockets their [`udp_gro`](SocketOptions::udp_gro). From now on this process
    /// removes the files of inherited Unix sockets when it closes the sockets. Listening sockets
    /// and datagram sockets that no call has adopted are closed, because clients would connect to
    /// them and never be accepted.
    ///
    /// # Errors
    /// The predecessor is not notified, and continues. It is not an error if the predecessor has
    /// exited.
    /// - [`Unsupported`](ErrorKind::Unsupported): the platform or the kernel does not have an
    ///   option that was set.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied): the process may not set an option.
    /// - [`NoMemory`](ErrorKind::NoMemory): the system has no memory left.
    /// - [`Os`](ErrorKind::Os): the predecessor has filled the socket of the notification and does not
    ///   read it, or another error of the operating system.
    ///
    /// ```
    /// let mut activation = keepsock::Activation::from_env()?;
    /// activation.ready()?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn ready(&mut self) -> Result<()> {
        for options in &self.deferred {
            options.set().map_err(|e| e.during(READY))?;
        }
        // Before the notification: after it the predecessor does not remove the files.
        self.ownership.set_owner(true);
        if let Some(channel) = &self.channel {
            // On macOS it fails if the predecessor has exited.
            let _ = sys::forbid_sigpipe(sys::borrow(channel));
            // The buffer of the channel is empty, unless the predecessor has filled it. Then the
            // predecessor does not read, and a send would wait for as long as it wants.
            match sys::send(sys::borrow(channel), READY_REPORT, Wait::No) {
                Ok(_) => {}
                // The predecessor has exited, and this process serves.
                Err(e) if ErrorKind::of(&e) == ErrorKind::Reset => {}
                Err(e) => {
                    self.ownership.set_owner(false);
                    return Err(match e.kind() {
                        std::io::ErrorKind::WouldBlock => Error::new(ErrorKind::Os, READY)
                            .with_os_error(e.raw_os_error())
                            .detail("the predecessor does not read the channel of its handover"),
                        _ => Error::os(READY, &e),
                    });
                }
            }
        }
        self.channel = None;
        self.deferred.clear();
        self.ownership.remove_closed();
        self.items.clear();
        self.unowned.clear();
        Ok(())
    }

    /// Requires that a descriptor has this name. Returns the error that says of which kind the
    /// first one is.
    fn require_name(&self, name: &str) -> Result<Error> {
        let items = self.items.iter().filter(|item| item.name == name);
        let unowned = self.unowned.iter().filter(|unowned| unowned.name == name);
        let items = items.map(|item| (item.number, item.wrong_kind()));
        let all = items.chain(unowned.map(|unowned| (unowned.number, unowned.wrong_kind())));
        if let Some((_, error)) = all.min_by_key(|(number, _)| *number) {
            return Ok(error);
        }
        let known: Vec<_> = self.names().map(|name| format!("{name:?}")).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let what = format!("no descriptor is named {name:?}; the names are: {known}");
        Err(Error::new(ErrorKind::NotFound, OPERATION).detail(what))
    }

    /// Makes a server of the wanted items. On failure the items stay, in their order.
    fn adopt(
        &mut self,
        options: &SocketOptions,
        is_wanted: impl Fn(&Item) -> bool,
    ) -> Result<ServerSocket> {
        let all = std::mem::take(&mut self.items);
        let (wanted, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(is_wanted);
        self.items = rest;
        let (labels, mut sockets): (Vec<_>, Vec<_>) =
            wanted.into_iter().map(|item| ((item.number, item.name), item.adopted)).unzip();
        let set_options = self.channel.is_none();
        match ServerSocket::adopt(&mut sockets, options, set_options) {
            Ok(server) => {
                if !set_options {
                    // Before the options of datagram sockets. If the options of the server are
                    // rejected, the predecessor continues and must not have `udp_gro`.
                    self.deferred.insert(0, Box::new(server.pending_options()));
                }
                Ok(server)
            }
            Err(e) => {
                let back = labels.into_iter().zip(sockets);
                self.items.extend(back.map(|((number, name), adopted)| Item {
                    number,
                    name,
                    adopted,
                }));
                self.items.sort_by_key(|item| item.number);
                Err(e)
            }
        }
    }

    /// Makes a datagram socket of the item with this index. On failure the item stays.
    #[cfg(feature = "datagram")]
    fn adopt_datagram(&mut self, index: usize, options: &SocketOptions) -> Result<DatagramSocket> {
        let Item { number, name, adopted } = self.items.remove(index);
        let set_options = self.channel.is_none();
        match DatagramSocket::adopt(adopted, options, set_options) {
            Ok(socket) => {
                if !set_options && (options.udp_gro || !options.kernel.is_empty()) {
                    self.deferred.push(Box::new(socket.pending_options(options)));
                }
                Ok(socket)
            }
            Err((adopted, e)) => {
                self.items.insert(index, Item { number, name, adopted });
                Err(e)
            }
        }
    }

    /// Finds the item of a kind that is bound to an endpoint, and its index.
    fn find_bound(
        &self,
        endpoint: &Endpoint,
        options: &SocketOptions,
        (kind, operation): (Type, &'static str),
        is_of_kind: impl Fn(&Item) -> bool,
    ) -> Result<Option<(usize, &Item)>> {
        let find = |is_bound: &dyn Fn(&Item) -> bool| {
            let mut all = self.items.iter().enumerate();
            all.find(|(_, item)| is_of_kind(item) && is_bound(item))
        };
        let (is_any_host, is_port_0) = match &endpoint.0 {
            Target::Inet { host, port } => (*host == Host::Any, *port == Port::Number(0)),
            Target::UnixPath(path) => return Ok(find(&|item| item.is_bound_to_path(path))),
            Target::UnixAbstract(name) => {
                let name = Address::UnixAbstract(name.clone());
                return Ok(find(&|item| item.address().as_ref() == Some(&name)));
            }
        };
        // Without an inherited socket of this kind, no lookup of the name is needed here.
        if find(&|item| matches!(item.address(), Some(Address::Inet(_)))).is_none() {
            return Ok(None);
        }
        let (deadline, cancel) =
            (Deadline::after(options.connect_timeout), options.cancel.as_ref());
        let found = resolve(endpoint, kind, options.family, deadline, cancel, operation)?;
        let found = options.prefer(endpoint, found);
        let find_at = |wanted: std::net::SocketAddr| {
            let dual = is_any_host && wanted.is_ipv6() && options.family == Family::Any;
            find(&|item| {
                (item.adopted.ephemeral_port || !is_port_0) && item.is_bound_to(wanted, dual)
            })
        };
        let mut addresses = found.into_iter();
        if let Some(found) = addresses.next().and_then(find_at) {
            return Ok(Some(found));
        }
        // As in listening and binding: on a machine without IPv6, `*` is IPv4 only.
        let second = addresses.next().filter(|_| is_any_host).and_then(find_at);
        Ok(second.filter(|_| is_ipv6_missing()))
    }
}
