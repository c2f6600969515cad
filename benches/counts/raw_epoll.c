/* raw_epoll CONNECTIONS READ_TIMEOUT_MS - plain C: one thread, level-triggered epoll */
#define _GNU_SOURCE
#include "events.h"
#include "raw.h"
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>

enum { MOST = 20000, EVENTS = 256 };

/* By descriptor. Unused pages cost nothing. */
static struct connection {
    char *rest; /* bytes that the kernel has not accepted yet */
    unsigned rest_len;
    bool open;
} connections[MOST];

static int epoll, highest;
static long left;

static void watch(int operation, int fd, uint32_t what)
{
    struct epoll_event event = {.events = what, .data.fd = fd};

    must(epoll_ctl(epoll, operation, fd, &event) == 0, "epoll_ctl");
}

/* Returns the number of sent bytes; 0 if the kernel has no room. */
static size_t send_some(int fd, const char *data, size_t len)
{
    ssize_t sent = send(fd, data, len, MSG_NOSIGNAL);

    must(sent >= 0 || errno == EAGAIN, "send");
    return sent > 0 ? (size_t)sent : 0;
}

static void send_all(int fd, const char *data, size_t len)
{
    struct connection *c = &connections[fd];

    if (c->rest_len == 0) {
        size_t sent = send_some(fd, data, len);

        if (sent == len)
            return;
        data += sent;
        len -= sent;
        /* The server reads no data until the rest is sent: back-pressure. */
        watch(EPOLL_CTL_MOD, fd, EPOLLOUT);
    }
    c->rest = realloc(c->rest, c->rest_len + len);
    must(c->rest != NULL, "realloc");
    memcpy(c->rest + c->rest_len, data, len);
    c->rest_len += (unsigned)len;
}

static void send_rest(int fd)
{
    struct connection *c = &connections[fd];
    size_t sent = send_some(fd, c->rest, c->rest_len);

    c->rest_len -= (unsigned)sent;
    memmove(c->rest, c->rest + sent, c->rest_len);
    if (c->rest_len > 0)
        return;
    free(c->rest);
    c->rest = NULL;
    watch(EPOLL_CTL_MOD, fd, EPOLLIN);
}

static void attend(int fd)
{
    char buf[SIZE];
    ssize_t got = recv(fd, buf, sizeof buf, 0);

    if (got < 0) {
        must(errno == EAGAIN, "recv");
    } else if (got == 0) {
        connections[fd].open = false;
        close(fd);
        left--;
    } else if (buf[0] == BROADCAST) {
        for (int to = 0; to <= highest; to++)
            if (connections[to].open)
                send_all(to, buf, (size_t)got);
    } else {
        send_all(fd, buf, (size_t)got);
    }
}

static void welcome(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    must(fd >= 0 && fd < MOST, "accept4");
    watch(EPOLL_CTL_ADD, fd, EPOLLIN);
    connections[fd].open = true;
    if (fd > highest)
        highest = fd;
    /* The first message has usually arrived, so this saves a wait. */
    attend(fd);
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS];

    must(argc == 3, "usage: raw_epoll CONNECTIONS READ_TIMEOUT_MS");
    left = strtol(argv[1], NULL, 10);
    alarm(GIVE_UP_AFTER_S);
    raise_descriptor_limit();
    epoll = epoll_create1(EPOLL_CLOEXEC);
    must(epoll >= 0, "epoll_create1");

    int listener = listen_loopback();
    watch(EPOLL_CTL_ADD, listener, EPOLLIN);
    while (left > 0) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);

        must(ready > 0, "epoll_wait");
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;

            if (fd == listener)
                welcome(fd);
            else if (connections[fd].rest_len > 0)
                send_rest(fd);
            else
                attend(fd);
        }
    }
    return 0;
}
