/*
 * adapters.c - a client that stores one descriptor per connection, in five event loops
 *
 *     adapters loops                                prints the names of the loops
 *     adapters server                               a server; prints its endpoint
 *     adapters cycles LOOP plain|keepsock HOST:PORT N
 *                                                   connect, PING, PONG, close, N times
 *     adapters cases LOOP FOLDER HOST:PORT [names]  checks connects in a network namespace
 *
 * hiredis and other client libraries wait through an adapter for each event
 * loop: a table of callbacks that add and delete events of the one descriptor of
 * a connection. Here the client connects with keepsock or with plain calls, and
 * the adapters are those of poll(2), epoll(7) level-triggered and edge-triggered,
 * libuv and libevent.
 *
 * The namespace of the cases has a server at HOST:PORT, an interface that drops
 * the packets to 192.0.2.0/24 and 2001:db8::/64, and the names of run.sh.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <keepsock.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#ifdef HAVE_LIBUV
#include <uv.h>
#endif
#ifdef HAVE_LIBEVENT
#include <event2/event.h>
#include <event2/event_struct.h>
#endif

static const char *at = "start"; /* for messages */

static void must(int true_, const char *what)
{
    if (!true_) {
        fprintf(stderr, "%s: %s (errno %d)\n", at, what, errno);
        exit(1);
    }
}

static int64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* --- The adapters ------------------------------------------------------------- */

enum { READ = 1, WRITE = 2 };

/* A connection, as an adapter stores it. */
struct io {
    int fd;
    int events; /* that are added */
    void (*ready)(struct io *);
    void *user;
    void *handle; /* the loop's object for it */
};

struct adapter {
    const char *name;
    void (*open)(void);
    void (*add)(struct io *, int event);
    void (*del)(struct io *, int event);
    void (*cleanup)(struct io *); /* before the descriptor is closed */
    void (*schedule)(int64_t ms); /* one timer; below 0: none */
    void (*turn)(void);           /* waits once, and calls what is ready */
    void (*close)(void);
};

static void (*on_timer)(void);
static long wake_ups; /* how often a wait returned */

/* The timer of loops that have a timeout for a wait. */
static int64_t timer_at = -1;

static void schedule_timer(int64_t ms)
{
    timer_at = ms < 0 ? -1 : now_us() + ms * 1000;
}

static int time_left(void)
{
    int64_t left;

    if (timer_at < 0)
        return -1;
    left = timer_at - now_us();
    return left <= 0 ? 0 : (int)((left + 999) / 1000);
}

static int call_timer(void)
{
    if (timer_at < 0 || now_us() < timer_at)
        return 0;
    timer_at = -1;
    on_timer();
    return 1;
}

/* poll(2) */

static struct io *polled[16];
static nfds_t polled_count;

static void poll_open(void)
{
    polled_count = 0;
}

static void poll_add(struct io *io, int event)
{
    if (io->handle == NULL) {
        must(polled_count < 16, "too many descriptors");
        polled[polled_count++] = io;
        io->handle = polled;
    }
    io->events |= event;
}

static void poll_del(struct io *io, int event)
{
    io->events &= ~event;
}

static void poll_cleanup(struct io *io)
{
    for (nfds_t i = 0; i < polled_count; i++)
        if (polled[i] == io)
            polled[i] = polled[--polled_count];
    io->handle = NULL;
    io->events = 0;
}

static void poll_turn(void)
{
    struct pollfd fds[16];

    for (nfds_t i = 0; i < polled_count; i++) {
        short events = (short)((polled[i]->events & READ ? POLLIN : 0) | (polled[i]->events & WRITE ? POLLOUT : 0));

        fds[i] = (struct pollfd){polled[i]->events != 0 ? polled[i]->fd : -1, events, 0};
    }
    must(poll(fds, polled_count, time_left()) >= 0, "poll");
    wake_ups++;
    if (call_timer())
        return; /* it may have changed the list */
    for (nfds_t i = 0; i < polled_count; i++)
        if (fds[i].fd >= 0 && fds[i].fd == polled[i]->fd && fds[i].revents != 0) {
            polled[i]->ready(polled[i]); /* which may change the list */
            return;
        }
}

static void poll_close(void)
{
    must(polled_count == 0, "a descriptor is left in the loop");
}

/* epoll(7) */

static int epoll_fd = -1;
static long epoll_count;
static uint32_t edge;

static void level_open(void)
{
    edge = 0;
    must((epoll_fd = epoll_create1(EPOLL_CLOEXEC)) >= 0, "epoll_create1");
}

static void edge_open(void)
{
    level_open();
    edge = EPOLLET;
}

static void epoll_set(struct io *io, int events)
{
    struct epoll_event event = {.data.ptr = io};

    event.events = edge | (events & READ ? (uint32_t)EPOLLIN : 0) | (events & WRITE ? (uint32_t)EPOLLOUT : 0);
    if (events == io->events)
        return;
    must(epoll_ctl(epoll_fd, io->handle == NULL ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, io->fd, &event) == 0, "epoll_ctl");
    epoll_count += io->handle == NULL;
    io->handle = &epoll_fd;
    io->events = events;
}

static void epoll_add(struct io *io, int event)
{
    epoll_set(io, io->events | event);
}

static void epoll_del(struct io *io, int event)
{
    epoll_set(io, io->events & ~event);
}

static void epoll_cleanup(struct io *io)
{
    if (io->handle == NULL)
        return;
    /* Fails if the descriptor was closed before: the loop would not notice. */
    must(epoll_ctl(epoll_fd, EPOLL_CTL_DEL, io->fd, NULL) == 0, "EPOLL_CTL_DEL");
    epoll_count--;
    io->handle = NULL;
    io->events = 0;
}

static void epoll_turn(void)
{
    struct epoll_event event;
    int count = epoll_wait(epoll_fd, &event, 1, time_left());

    must(count >= 0, "epoll_wait");
    wake_ups++;
    call_timer();
    if (count > 0) {
        struct io *io = event.data.ptr;

        if (io->handle != NULL)
            io->ready(io);
    }
}

static void epoll_close(void)
{
    must(epoll_count == 0, "a descriptor is left in the loop");
    close(epoll_fd);
}

#ifdef HAVE_LIBUV

static uv_loop_t uv;
static uv_timer_t uv_timer;

static void uv_check(int status, const char *what)
{
    if (status < 0)
        fprintf(stderr, "%s: %s\n", what, uv_strerror(status));
    must(status >= 0, what);
}

static void uv_on_timer(uv_timer_t *timer)
{
    (void)timer;
    on_timer();
}

static void uv_on_ready(uv_poll_t *poll, int status, int events)
{
    struct io *io = poll->data;

    (void)status, (void)events;
    io->ready(io);
}

static void uv_on_closed(uv_handle_t *handle)
{
    free(handle);
}

static void uv_open(void)
{
    uv_check(uv_loop_init(&uv), "loop_init");
    uv_check(uv_timer_init(&uv, &uv_timer), "timer_init");
}

static void uv_set(struct io *io, int events)
{
    if (io->handle == NULL) {
        uv_poll_t *poll = calloc(1, sizeof *poll);

        must(poll != NULL, "calloc");
        uv_check(uv_poll_init(&uv, poll, io->fd), "poll_init");
        poll->data = io;
        io->handle = poll;
    }
    io->events = events;
    if (events == 0)
        uv_check(uv_poll_stop(io->handle), "poll_stop");
    else
        uv_check(uv_poll_start(io->handle, (events & READ ? UV_READABLE : 0) | (events & WRITE ? UV_WRITABLE : 0),
                     uv_on_ready), "poll_start");
}

static void uv_add(struct io *io, int event)
{
    uv_set(io, io->events | event);
}

static void uv_del(struct io *io, int event)
{
    uv_set(io, io->events & ~event);
}

static void uv_cleanup(struct io *io)
{
    if (io->handle == NULL)
        return;
    uv_close(io->handle, uv_on_closed); /* ends polling now */
    io->handle = NULL;
    io->events = 0;
}

static void uv_schedule(int64_t ms)
{
    uv_update_time(&uv);
    if (ms < 0)
        uv_timer_stop(&uv_timer);
    else
        uv_check(uv_timer_start(&uv_timer, uv_on_timer, (uint64_t)ms, 0), "timer_start");
}

static void uv_turn(void)
{
    uv_run(&uv, UV_RUN_ONCE);
    wake_ups++;
}

static void uv_end(void)
{
    uv_close((uv_handle_t *)&uv_timer, NULL);
    uv_run(&uv, UV_RUN_DEFAULT);
    uv_check(uv_loop_close(&uv), "a descriptor is left in the loop");
}

#endif
#ifdef HAVE_LIBEVENT

static struct event_base *base;
static struct event *event_timer;

static void event_on_timer(evutil_socket_t fd, short what, void *user)
{
    (void)fd, (void)what, (void)user;
    on_timer();
}

static void event_on_ready(evutil_socket_t fd, short what, void *user)
{
    struct io *io = user;

    (void)fd, (void)what;
    io->ready(io);
}

static void event_open(void)
{
    must((base = event_base_new()) != NULL, "event_base_new");
    must((event_timer = evtimer_new(base, event_on_timer, NULL)) != NULL, "evtimer_new");
}

/* As hiredis' adapter does: one event, which is assigned again for each change. */
static void event_set_events(struct io *io, int events)
{
    if (io->handle == NULL) {
        must((io->handle = event_new(base, io->fd, EV_PERSIST, event_on_ready, io)) != NULL, "event_new");
    } else if (events == io->events) {
        return;
    }
    event_del(io->handle);
    io->events = events;
    if (events != 0) {
        short what = (short)(EV_PERSIST | (events & READ ? EV_READ : 0) | (events & WRITE ? EV_WRITE : 0));

        must(event_assign(io->handle, base, io->fd, what, event_on_ready, io) == 0, "event_assign");
        must(event_add(io->handle, NULL) == 0, "event_add");
    }
}

static void event_add_event(struct io *io, int event)
{
    event_set_events(io, io->events | event);
}

static void event_del_event(struct io *io, int event)
{
    event_set_events(io, io->events & ~event);
}

static void event_cleanup(struct io *io)
{
    if (io->handle == NULL)
        return;
    event_free(io->handle);
    io->handle = NULL;
    io->events = 0;
}

static void event_schedule(int64_t ms)
{
    struct timeval time = {ms / 1000, ms % 1000 * 1000};

    if (ms < 0)
        evtimer_del(event_timer);
    else
        must(evtimer_add(event_timer, &time) == 0, "evtimer_add");
}

static void event_turn(void)
{
    must(event_base_loop(base, EVLOOP_ONCE) == 0, "event_base_loop");
    wake_ups++;
}

static void event_close(void)
{
    event_free(event_timer);
    must(event_base_get_num_events(base, EVENT_BASE_COUNT_ADDED) == 0, "a descriptor is left in the loop");
    event_base_free(base);
}

#endif

static const struct adapter adapters[] = {
    {"poll", poll_open, poll_add, poll_del, poll_cleanup, schedule_timer, poll_turn, poll_close},
    {"epoll", level_open, epoll_add, epoll_del, epoll_cleanup, schedule_timer, epoll_turn, epoll_close},
    {"epoll-edge", edge_open, epoll_add, epoll_del, epoll_cleanup, schedule_timer, epoll_turn, epoll_close},
#ifdef HAVE_LIBUV
    {"libuv", uv_open, uv_add, uv_del, uv_cleanup, uv_schedule, uv_turn, uv_end},
#endif
#ifdef HAVE_LIBEVENT
    {"libevent", event_open, event_add_event, event_del_event, event_cleanup, event_schedule, event_turn, event_close},
#endif
};
enum { ADAPTERS = sizeof adapters / sizeof adapters[0] };

static const struct adapter *loop;

/* --- The client --------------------------------------------------------------- */

static const char PING[] = "PING\n";
static const char PONG[] = "PONG\n";

static struct io io; /* the connection that the adapter watches */
static int32_t result;
static int done;
static int early_ms;  /* the timers expire that much early */
static long calls_early; /* calls of finish by a timer with nothing to do */

/* With plain calls */

static void plain_ready(struct io *ready)
{
    char buf[16];

    if (ready->events & WRITE) {
        int error = 0;
        socklen_t len = sizeof error;

        must(getsockopt(ready->fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == 0, "SO_ERROR");
        must(send(ready->fd, PING, sizeof PING - 1, MSG_NOSIGNAL) == sizeof PING - 1, "send");
        loop->schedule(-1);
        loop->add(ready, READ);
        loop->del(ready, WRITE);
        return;
    }
    must(recv(ready->fd, buf, sizeof buf, 0) == sizeof PONG - 1, "recv");
    loop->cleanup(ready);
    close(ready->fd);
    done = 1;
}

static void plain_timer(void)
{
    must(0, "the deadline of the plain connect expired");
}

/* With the options that keepsock sets by default. */
static void plain_start(const char *endpoint)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    int on = 1, idle = 45, interval = 15, count = 5;
    char host[64];
    unsigned short port;

    must(sscanf(endpoint, "%63[^:]:%hu", host, &port) == 2 && inet_pton(AF_INET, host, &to.sin_addr) == 1, "endpoint");
    to.sin_port = htons(port);
    io = (struct io){.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), .ready = plain_ready};
    must(io.fd >= 0, "socket");
    setsockopt(io.fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(io.fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(io.fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(io.fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
    setsockopt(io.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    must(connect(io.fd, (struct sockaddr *)&to, sizeof to) == 0 || errno == EINPROGRESS, "connect");
    on_timer = plain_timer;
    loop->add(&io, WRITE);
    loop->schedule(10000);
}

/* With keepsock */

static keepsock_pending_connect *pending;
static keepsock_client *client;
static int watches; /* the form with callbacks, else the socket itself */
static int asserts; /* checks that cost system calls */

static void failed(int32_t status)
{
    result = status;
    done = 1;
}

static void client_ready(struct io *ready)
{
    char buf[16];
    size_t len;
    int32_t status = keepsock_client_read(client, buf, sizeof buf, &len, NULL);

    if (status == KEEPSOCK_ERR_WOULD_BLOCK)
        return;
    must(status == KEEPSOCK_OK && len == sizeof PONG - 1, "no PONG");
    loop->cleanup(ready);
    keepsock_client_free(client);
    client = NULL;
    failed(KEEPSOCK_OK);
}

static void schedule_next(void)
{
    int64_t ms;

    must(keepsock_pending_connect_next_timeout(pending, &ms, NULL) == KEEPSOCK_OK, "pending_connect_timeout");
    loop->schedule(ms > early_ms ? ms - early_ms : ms);
}

static void advance(void)
{
    keepsock_pending_connect *finished = pending;
    int32_t status = keepsock_pending_connect_finish(pending, &client, NULL);
    keepsock_fd fd = -1;

    if (status == KEEPSOCK_ERR_WOULD_BLOCK) {
        if (!watches)
            schedule_next();
        return;
    }
    loop->schedule(-1);
    pending = NULL;
    if (status != KEEPSOCK_OK) {
        if (!watches)
            loop->cleanup(&io);
        keepsock_pending_connect_free(finished);
        failed(status);
        return;
    }
    keepsock_pending_connect_free(finished);
    must(keepsock_client_set_nonblocking(client, true, NULL) == KEEPSOCK_OK, "set_nonblocking");
    if (asserts || io.fd < 0) {
        must(keepsock_client_fd(client, &fd, NULL) == KEEPSOCK_OK, "client_fd");
        must(io.fd < 0 || fd == io.fd, "the connection has another descriptor");
        io.fd = fd;
    }
    io.ready = client_ready;
    must(keepsock_client_write_all(client, PING, sizeof PING - 1, NULL) == KEEPSOCK_OK, "write");
    loop->add(&io, READ);
    if (io.events & WRITE)
        loop->del(&io, WRITE);
}

static void socket_ready(struct io *ready)
{
    (void)ready;
    advance();
}

static void pending_timer(void)
{
    advance();
    calls_early += !done && client == NULL;
}

static struct io watched[16];

static void on_watch(keepsock_fd fd, int32_t watch, void *user)
{
    int i = 0;

    (void)user;
    while (i < 16 && (watched[i].handle == NULL || watched[i].fd != fd))
        i++;
    if (watch == KEEPSOCK_WATCH_REMOVE) {
        must(i < 16, "the removal of a descriptor that is not watched");
        loop->cleanup(&watched[i]);
        return;
    }
    must(i == 16, "a descriptor is added twice");
    for (i = 0; i < 16 && watched[i].handle != NULL; i++)
        ;
    must(i < 16, "too many descriptors");
    watched[i] = (struct io){.fd = fd, .ready = socket_ready};
    loop->add(&watched[i], watch == KEEPSOCK_WATCH_READ ? READ : WRITE);
}

static void on_timeout(int64_t ms, void *user)
{
    (void)user;
    loop->schedule(ms > early_ms ? ms - early_ms : ms);
}

static void keepsock_start(const char *endpoint, int64_t deadline_ms)
{
    keepsock_options *options = NULL;
    keepsock_fd fd = -1;
    int32_t status;

    must(keepsock_options_new(&options, NULL) == KEEPSOCK_OK
            && keepsock_options_set_connect_timeout(options, deadline_ms, NULL) == KEEPSOCK_OK
            /* As close(2): otherwise a thread of the library waits for the peer's close. */
            && keepsock_options_set_close_timeout(options, 0, NULL) == KEEPSOCK_OK, "options");
    io = (struct io){.fd = -1, .ready = socket_ready};
    on_timer = pending_timer;
    status = keepsock_pending_connect_start(endpoint, options, &pending, NULL);
    keepsock_options_free(options);
    must(status == KEEPSOCK_OK, "start");
    if (watches) {
        must(keepsock_pending_connect_set_watch(pending, on_watch, on_timeout, NULL, NULL) == KEEPSOCK_OK, "set_watch");
        return;
    }
    status = keepsock_pending_connect_socket(pending, &fd, NULL);
    if (status == KEEPSOCK_OK) {
        io.fd = fd;
        loop->add(&io, WRITE);
    } else {
        /* A full queue has no descriptor, and a connect that has failed already has a result. */
        must(status == KEEPSOCK_ERR_WOULD_BLOCK || status == KEEPSOCK_ERR_WRONG_STATE, "socket");
    }
    schedule_next();
}

/* --- The cases ---------------------------------------------------------------- */

static void serve(int listener)
{
    for (;;) {
        int peer = accept(listener, NULL, NULL);
        char buf[16];
        ssize_t len;

        if (peer < 0)
            return;
        while ((len = recv(peer, buf, sizeof buf, 0)) > 0)
            if (send(peer, PONG, sizeof PONG - 1, MSG_NOSIGNAL) < 0)
                break;
        close(peer);
    }
}

static void *serve_thread(void *listener)
{
    serve(*(int *)listener);
    return NULL;
}

static int listen_tcp(char *endpoint)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof here;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    must(fd >= 0 && bind(fd, (struct sockaddr *)&here, sizeof here) == 0 && listen(fd, 128) == 0
            && getsockname(fd, (struct sockaddr *)&here, &len) == 0, "listen");
    sprintf(endpoint, "127.0.0.1:%d", ntohs(here.sin_port));
    return fd;
}

static int unix_socket(const char *path, struct sockaddr_un *name)
{
    *name = (struct sockaddr_un){.sun_family = AF_UNIX};
    must(strlen(path) < sizeof name->sun_path, "the path is too long");
    strcpy(name->sun_path, path);
    return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

static void finish_case(const char *name, int32_t expected, int64_t least_ms, long most_wake_ups, int64_t from)
{
    int64_t us = now_us() - from;

    printf("%s, %s: %s, %.1f ms, %ld wake-ups, %ld calls before their time\n", loop->name, name,
        keepsock_status_str(result), (double)us / 1000, wake_ups, calls_early);
    must(result == expected, "another result");
    must(us >= least_ms * 1000, "before its deadline");
    must(wake_ups <= most_wake_ups, "too many wake-ups");
}

static int64_t begin_case(const char *name, const char *endpoint, int64_t deadline_ms)
{
    int64_t from = now_us();

    at = name;
    wake_ups = calls_early = done = 0;
    result = 1;
    alarm(100); /* only a hang takes that long */
    keepsock_start(endpoint, deadline_ms);
    return from;
}

static void connect_case(const char *name, const char *endpoint, int32_t expected, int64_t deadline_ms,
    int64_t least_ms, long most_wake_ups)
{
    int64_t from = begin_case(name, endpoint, deadline_ms);

    while (!done)
        loop->turn();
    finish_case(name, expected, least_ms, most_wake_ups, from);
}

enum { FILLERS = 8 };

/* A Unix listener with a full queue, and the sockets that fill it. */
static int fill(const char *path, int fillers[FILLERS])
{
    struct sockaddr_un name;
    int listener = unix_socket(path, &name);
    int count = 0;

    must(bind(listener, (struct sockaddr *)&name, sizeof name) == 0 && listen(listener, 1) == 0, "listen");
    for (int i = 0; i < FILLERS; i++) {
        fillers[i] = unix_socket(path, &name);
        count += connect(fillers[i], (struct sockaddr *)&name, sizeof name) == 0;
    }
    must(count < FILLERS && errno == EAGAIN, "the queue is not full");
    return listener;
}

static void backlog_cases(const char *folder)
{
    char path[200], endpoint[210];
    int fillers[FILLERS], listener;
    pthread_t thread;
    int64_t from;

    snprintf(path, sizeof path, "%s/queue", folder);
    snprintf(endpoint, sizeof endpoint, "unix:%s", path);
    unlink(path);
    listener = fill(path, fillers);
    /* No descriptor reports that the queue has space. The pause doubles from 1 ms to 20 ms. */
    connect_case("full queue", endpoint, KEEPSOCK_ERR_TIMED_OUT, 300, 300, 45);

    from = begin_case("full queue, later accepted", endpoint, 60000);
    while (wake_ups < 4)
        loop->turn();
    must(!done, "the queue was not full");
    for (int i = 0; i < FILLERS; i++)
        close(fillers[i]);
    must(fcntl(listener, F_SETFL, 0) == 0, "F_SETFL");
    must(pthread_create(&thread, NULL, serve_thread, &listener) == 0, "pthread_create");
    while (!done)
        loop->turn();
    /* After the pauses, one wake-up for the reply. A busy machine delays the accept. */
    finish_case("full queue, later accepted", KEEPSOCK_OK, 0, 20 + (long)((now_us() - from) / 10000), from);
    connect_case("Unix server", endpoint, KEEPSOCK_OK, 60000, 0, 5);
    shutdown(listener, SHUT_RDWR); /* ends the thread */
    pthread_join(thread, NULL);
    close(listener);
    unlink(path);
}

static int open_descriptors(void)
{
    int count = 0;

    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* A thread of the library may still end a lookup or a close. */
static void await_descriptors(int expected)
{
    int64_t from = now_us();

    while (open_descriptors() != expected) {
        must(now_us() - from < 20000000, "a descriptor is left open");
        poll(NULL, 0, 10);
    }
}

static void cases(const char *folder, const char *server, int names)
{
    const char *port = strrchr(server, ':');
    char refused[64], named[64], dead[64];
    int before;

    loop->open();
    loop->close(); /* libuv keeps a pipe for the process */
    before = open_descriptors();
    snprintf(named, sizeof named, "dual.test%s", port);
    snprintf(dead, sizeof dead, "dead.test%s", port);
    close(listen_tcp(refused)); /* no other process is in this namespace */
    asserts = 1;
    loop->open();
    for (watches = 0; watches < 2; watches++) {
        printf("%s:\n", watches ? "with callbacks" : "with the socket itself");
        connect_case("refused", refused, KEEPSOCK_ERR_REFUSED, 60000, 0, 3);
        connect_case("dropped", "192.0.2.77:80", KEEPSOCK_ERR_TIMED_OUT, 300, 300, 5);
        connect_case("TCP server", server, KEEPSOCK_OK, 60000, 0, 5);
        backlog_cases(folder);
        /* A timer that expires early, as those of libuv may. A busy machine may delay it past its time. */
        early_ms = 7;
        for (int tries = 0; tries == 0 || calls_early == 0; tries++) {
            must(tries < 50, "no timer was early");
            connect_case("timers 7 ms early", "192.0.2.77:80", KEEPSOCK_ERR_TIMED_OUT, 100, 100, 8);
        }
        early_ms = 0;
        for (int ms = 20; ms < 40; ms++) {
            char name[32];

            sprintf(name, "dropped, %d ms", ms);
            connect_case(name, "192.0.2.77:80", KEEPSOCK_ERR_TIMED_OUT, ms, ms, 5);
        }
    }
    watches = 1;
    if (names) {
        /* The first address of the name drops all packets, the second is the server. */
        connect_case("first address dropped", named, KEEPSOCK_OK, 60000, 200, 12);
        connect_case("all addresses dropped", dead, KEEPSOCK_ERR_TIMED_OUT, 600, 600, 12);
    }
    loop->close();
    await_descriptors(before);
}

int main(int argc, char **argv)
{
    char endpoint[64];

    if (argc == 2 && strcmp(argv[1], "loops") == 0) {
        for (int i = 0; i < ADAPTERS; i++)
            puts(adapters[i].name);
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "server") == 0) {
        int listener = listen_tcp(endpoint);

        puts(endpoint);
        fflush(stdout);
        serve(listener);
        return 0;
    }
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    for (int i = 0; argc > 2 && i < ADAPTERS; i++)
        if (strcmp(argv[2], adapters[i].name) == 0)
            loop = &adapters[i];
    must(loop != NULL, "usage: adapters loops | server | cycles LOOP plain|keepsock HOST:PORT N | cases LOOP FOLDER HOST:PORT [names]");
    if (argc >= 5 && strcmp(argv[1], "cases") == 0) {
        cases(argv[3], argv[4], argc > 5);
        return 0;
    }
    must(argc == 6 && strcmp(argv[1], "cycles") == 0, "arguments");
    loop->open();
    for (long left = strtol(argv[5], NULL, 10); left > 0; left--) {
        done = 0;
        if (strcmp(argv[3], "plain") == 0)
            plain_start(argv[4]);
        else
            keepsock_start(argv[4], 10000);
        while (!done)
            loop->turn();
    }
    loop->close();
    return 0;
}
