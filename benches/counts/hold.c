/*
 * hold PORT CONNECTIONS - clients that stay connected and execute commands
 *
 * Opens the connections, sends one message to be echoed on each, prints "ready", and reads commands
 * from standard input. It answers each with "done":
 *   echo N       N messages on every connection, each after the reply to the previous one
 *   broadcast N  N messages to all, each requested by one client when all have the previous one
 * At the end of the input it closes all connections.
 */
#define _GNU_SOURCE
#include "events.h"
#include "raw.h"
#include <string.h>
#include <sys/epoll.h>

/* The connections per source address, which has 28,000 ports, some of them in use. */
enum { FOR_EACH_ADDRESS = 1000, EVENTS = 256, LENGTH = 64 };

struct connection {
    int fd;
    long left;      /* messages still to be sent */
    size_t missing; /* missing bytes of the current reply */
};

static struct connection *all;
static long count;
static int epoll;

static void ask(struct connection *c, const char *message)
{
    must(send(c->fd, message, LENGTH, MSG_NOSIGNAL) == LENGTH, "send");
}

static void start(struct connection *c, long number, const struct sockaddr_in *server)
{
    struct sockaddr_in source = {
        .sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)(number / FOR_EACH_ADDRESS)),
    };
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};

    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(c->fd >= 0, "socket");
    set(c->fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
    must(bind(c->fd, (struct sockaddr *)&source, sizeof source) == 0, "bind");
    must(connect(c->fd, (const struct sockaddr *)server, sizeof *server) == 0, "connect");
    must(epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event) == 0, "epoll_ctl");
}

/* Receives the available bytes. Returns true when the reply is complete. */
static int take(struct connection *c, const char *message)
{
    char buf[LENGTH];
    ssize_t got = recv(c->fd, buf, c->missing, 0);

    must(got > 0, "recv");
    must(memcmp(buf, message + LENGTH - c->missing, (size_t)got) == 0, "the answer differs");
    c->missing -= (size_t)got;
    return c->missing == 0;
}

/* Runs until each connection has the replies to all its messages. */
static void take_all(long waiting, const char *message)
{
    struct epoll_event events[EVENTS];

    while (waiting > 0) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);

        must(ready > 0, "epoll_wait");
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;

            if (!take(c, message))
                continue;
            if (c->left == 0) {
                waiting--;
                continue;
            }
            c->left--;
            c->missing = LENGTH;
            ask(c, message);
        }
    }
}

static void echo(struct connection *from, long connections, long messages)
{
    char message[LENGTH];

    memset(message, 'k', sizeof message);
    for (struct connection *c = from; c < from + connections; c++) {
        c->left = messages - 1;
        c->missing = LENGTH;
        ask(c, message);
    }
    take_all(connections, message);
}

static void broadcast(void)
{
    char message[LENGTH];

    memset(message, BROADCAST, sizeof message);
    for (struct connection *c = all; c < all + count; c++)
        c->missing = LENGTH;
    ask(&all[0], message);
    take_all(count, message);
}

static void say(const char *word)
{
    puts(word);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    char order[16];
    long times;

    must(argc == 3, "usage: hold PORT CONNECTIONS");
    struct sockaddr_in server = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)strtol(argv[1], NULL, 10)),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    count = strtol(argv[2], NULL, 10);
    must(count > 0, "arguments");
    alarm(GIVE_UP_AFTER_S);
    raise_descriptor_limit();
    all = calloc((size_t)count, sizeof *all);
    must(all != NULL, "calloc");
    epoll = epoll_create1(EPOLL_CLOEXEC);
    must(epoll >= 0, "epoll_create1");

    for (long i = 0; i < count; i++) {
        start(&all[i], i, &server);
        echo(&all[i], 1, 1);
    }
    say("ready");
    while (scanf("%15s %ld", order, &times) == 2) {
        if (strcmp(order, "echo") == 0)
            echo(all, count, times);
        else
            while (times-- > 0)
                broadcast();
        say("done");
    }
    for (long i = 0; i < count; i++)
        close(all[i].fd);
    return 0;
}
