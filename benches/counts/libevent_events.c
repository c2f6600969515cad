/* libevent_events CONNECTIONS READ_TIMEOUT_MS - libevent: one loop, a bufferevent for each connection */
#define _GNU_SOURCE
#include "events.h"
#include "raw.h"
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>

static long left;

static void on_read(struct bufferevent *connection, void *user)
{
    (void)user;
    must(evbuffer_add_buffer(bufferevent_get_output(connection), bufferevent_get_input(connection)) == 0, "write");
}

static void end(struct bufferevent *connection, void *base)
{
    bufferevent_free(connection);
    if (--left == 0)
        event_base_loopbreak(base);
}

static void on_event(struct bufferevent *connection, short what, void *base)
{
    must((what & BEV_EVENT_EOF) != 0, "connection");
    if (evbuffer_get_length(bufferevent_get_output(connection)) == 0)
        end(connection, base);
    else /* when the last reply is written */
        bufferevent_setcb(connection, NULL, end, NULL, base);
}

static void on_connection(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *from, int length, void *base)
{
    struct bufferevent *connection = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);

    (void)listener, (void)from, (void)length;
    must(connection != NULL, "bufferevent");
    bufferevent_setcb(connection, on_read, NULL, on_event, base);
    must(bufferevent_enable(connection, EV_READ | EV_WRITE) == 0, "enable");
}

int main(int argc, char **argv)
{
    must(argc == 3, "usage: libevent_events CONNECTIONS READ_TIMEOUT_MS");
    left = strtol(argv[1], NULL, 10);
    alarm(GIVE_UP_AFTER_S);
    raise_descriptor_limit();

    struct event_base *base = event_base_new();
    must(base != NULL, "event_base");
    int fd = listen_loopback();
    must(evutil_make_socket_nonblocking(fd) == 0, "nonblocking");

    unsigned flags = LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC;
    struct evconnlistener *listener = evconnlistener_new(base, on_connection, base, flags, 0, fd);
    must(listener != NULL, "listener");
    must(event_base_dispatch(base) == 0, "dispatch");
    evconnlistener_free(listener);
    event_base_free(base);
    return 0;
}
