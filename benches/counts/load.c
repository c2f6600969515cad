/*
 * load PORT CONNECTIONS AT_ONCE MESSAGES SIZE - the load for each server
 *
 * Opens CONNECTIONS connections to the loopback port, AT_ONCE at a time.
 * Each connection sends MESSAGES messages of SIZE bytes, each after the reply to the
 * previous one, checks that the same bytes return, and closes. The next connection
 * starts when the server has also closed, so that the order of events does not vary.
 */
#define _GNU_SOURCE
#include "raw.h"
#include <string.h>
#include <sys/epoll.h>

enum { MOST_AT_ONCE = 256, LARGEST = 256 };

struct connection {
    int fd;
    long left;      /* messages still to be sent */
    size_t missing; /* missing bytes of the current reply */
};

static struct sockaddr_in server;
static char message[LARGEST];
static long messages;
static size_t size;

static void ask(struct connection *c)
{
    c->left--;
    c->missing = size;
    must(send(c->fd, message, size, MSG_NOSIGNAL) == (ssize_t)size, "send");
}

static void start(struct connection *c, int epoll)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};

    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(c->fd >= 0, "socket");
    set(c->fd, IPPROTO_TCP, TCP_NODELAY, 1);
    must(connect(c->fd, (struct sockaddr *)&server, sizeof server) == 0, "connect");
    must(epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event) == 0, "epoll_ctl");
    c->left = messages;
    ask(c);
}

/* Receives the available bytes. Returns true when the server has closed after the last reply. */
static int take(struct connection *c)
{
    char buf[LARGEST];
    int last = c->left == 0 && c->missing == 0;
    ssize_t got = recv(c->fd, buf, last ? sizeof buf : c->missing, 0);

    must(last ? got == 0 : got > 0, "recv");
    if (last)
        return 1;
    must(memcmp(buf, message + size - c->missing, (size_t)got) == 0, "the answer differs");
    c->missing -= (size_t)got;
    if (c->missing > 0)
        return 0;
    if (c->left == 0)
        must(shutdown(c->fd, SHUT_WR) == 0, "shutdown");
    else
        ask(c);
    return 0;
}

int main(int argc, char **argv)
{
    must(argc == 6, "usage: load PORT CONNECTIONS AT_ONCE MESSAGES SIZE");
    long connections = strtol(argv[2], NULL, 10), at_once = strtol(argv[3], NULL, 10);
    static struct connection all[MOST_AT_ONCE];
    struct epoll_event events[MOST_AT_ONCE];
    long started = 0, ended = 0;

    server.sin_family = AF_INET;
    server.sin_port = htons((uint16_t)strtol(argv[1], NULL, 10));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    messages = strtol(argv[4], NULL, 10);
    size = (size_t)strtol(argv[5], NULL, 10);
    must(at_once >= 1 && at_once <= MOST_AT_ONCE && messages >= 1 && size >= 1 && size <= LARGEST, "arguments");
    memset(message, 'k', sizeof message);
    alarm(GIVE_UP_AFTER_S);

    int epoll = epoll_create1(EPOLL_CLOEXEC);
    must(epoll >= 0, "epoll_create1");
    while (started < at_once && started < connections)
        start(&all[started++], epoll);
    while (ended < connections) {
        int ready = epoll_wait(epoll, events, MOST_AT_ONCE, -1);

        must(ready > 0, "epoll_wait");
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;

            if (!take(c))
                continue;
            close(c->fd);
            ended++;
            if (started < connections) {
                start(c, epoll);
                started++;
            }
        }
    }
    return 0;
}
