/*
 * chat.c - a chat server with rooms: any number of clients on one thread
 *
 *     chat [endpoint]
 *     nc localhost 7000      (a client: any program that sends lines)
 *
 * Listens on endpoint (default 127.0.0.1:0, any free port) and prints where.
 * A client's first line is its name. "/join ROOM" and "/leave" enter and leave
 * a room; every other line goes to all clients in that room, which also receive
 * a line when a client joins or leaves, with the reason. On Ctrl-C or SIGTERM
 * the server sends each client a goodbye and ends. Exit status: 0 ended by a
 * signal, 1 failed, 2 wrong arguments.
 */
#include <inttypes.h>
#include <keepsock.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LINE 500

/* The state of one connection, from its first callback to its last. */
struct person {
    char name[32]; /* empty until the first line has arrived */
    char room[64]; /* also the name of the group; empty: in no room */
};

/* A signal handler has no user pointer, so the token is global. */
static keepsock_cancel_token *stop;

static void on_signal(int signo)
{
    (void)signo;
    keepsock_cancel_token_fire(stop);
}

/* Sends one line to one client. If the send fails, the connection has ended, and
 * on_close follows; there is nothing to do here. */
static void tell(keepsock_conn conn, const char *text)
{
    keepsock_conn_send(conn, text, strlen(text), NULL);
}

/* Sends one line to all clients in a room; user points to the service. */
static void tell_room(void *user, const char *room, const char *format, ...)
{
    keepsock_service **service = user;
    char line[MAX_LINE + 100];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    keepsock_service_broadcast(*service, room, line, strlen(line), NULL, NULL, NULL, NULL, NULL);
}

static void leave(keepsock_conn conn, const char *why, void *user)
{
    struct person *person = keepsock_conn_user(conn);

    if (person == NULL || person->room[0] == '\0')
        return;
    tell_room(user, person->room, "* %s has left %s: %s", person->name, person->room, why);
    keepsock_conn_leave(conn, person->room, NULL);
    person->room[0] = '\0';
}

static void join(keepsock_conn conn, const char *room, void *user)
{
    struct person *person = keepsock_conn_user(conn);
    keepsock_error *error = NULL;

    leave(conn, "went to another room", user);
    snprintf(person->room, sizeof person->room, "%.*s", (int)sizeof person->room - 1, room);
    if (keepsock_conn_join(conn, person->room, &error) == KEEPSOCK_OK) {
        tell_room(user, person->room, "* %s has joined %s", person->name, person->room);
    } else { /* the name is not UTF-8 */
        tell(conn, keepsock_error_message(error));
        person->room[0] = '\0';
    }
    keepsock_error_free(error);
}

static void on_open(keepsock_conn conn, void *user)
{
    struct person *person = calloc(1, sizeof *person);

    (void)user;
    if (person == NULL) {
        keepsock_conn_abort(conn, NULL);
        return;
    }
    keepsock_conn_set_user(conn, person, NULL);
    tell(conn, "* your name?");
}

/* The library passes one line at a time, without LF and without a final NUL. */
static void on_data(keepsock_conn conn, const void *buf, size_t len, void *user)
{
    struct person *person = keepsock_conn_user(conn);
    char line[MAX_LINE + 1];

    memcpy(line, buf, len);
    line[len] = '\0';
    if (person->name[0] == '\0')
        snprintf(person->name, sizeof person->name, "%.*s", (int)sizeof person->name - 1, line);
    else if (strncmp(line, "/join ", 6) == 0 && line[6] != '\0')
        join(conn, line + 6, user);
    else if (strcmp(line, "/leave") == 0)
        leave(conn, "by /leave", user);
    else if (person->room[0] != '\0')
        tell_room(user, person->room, "%s: %s", person->name, line);
    else
        tell(conn, "* you are in no room: /join ROOM");
}

/* Closing delivers the queued lines first. */
static void on_drain(keepsock_conn conn, void *user)
{
    (void)user;
    tell(conn, "* goodbye: the server ends");
    keepsock_conn_close(conn, NULL);
}

/* Called once for every connection, whatever its close reason. */
static void on_close(keepsock_conn conn, int32_t reason, void *user)
{
    leave(conn, keepsock_close_reason_str(reason), user);
    free(keepsock_conn_user(conn));
}

int main(int argc, char **argv)
{
    const keepsock_callbacks callbacks = {
        .size = sizeof callbacks, .on_open = on_open, .on_data = on_data, .on_drain = on_drain, .on_close = on_close
    };
    const keepsock_framing lines = {.size = sizeof lines, .kind = KEEPSOCK_FRAMING_LINES, .max = MAX_LINE};
    keepsock_options *options = NULL;
    keepsock_serve_options *serve_options = NULL;
    keepsock_server *server = NULL;
    keepsock_service *service = NULL;
    keepsock_error *error = NULL;
    char where[KEEPSOCK_TEXT_SIZE];
    uint32_t completed, reset;
    int exit_status = 1;

    if (argc > 2) {
        fprintf(stderr, "usage: chat [endpoint]\n");
        return 2;
    }

    /* A client that does not read is disconnected when 64 KiB are queued for it,
     * and a client that sends no LF is disconnected after MAX_LINE bytes: memory
     * stays bounded. */
    if (keepsock_cancel_token_new(&stop, &error) != KEEPSOCK_OK
        || keepsock_options_new(&options, &error) != KEEPSOCK_OK
        || keepsock_options_set_cancel(options, stop, &error) != KEEPSOCK_OK
        || keepsock_serve_options_new(&serve_options, &error) != KEEPSOCK_OK
        || keepsock_serve_options_set_framing(serve_options, &lines, &error) != KEEPSOCK_OK
        || keepsock_serve_options_set_queue_limit(serve_options, 65536, &error) != KEEPSOCK_OK
        || keepsock_server_listen(argc > 1 ? argv[1] : "127.0.0.1:0", options, &server, &error) != KEEPSOCK_OK
        || keepsock_server_serve_events(server, serve_options, &callbacks, &service, &service, &error) != KEEPSOCK_OK
        || keepsock_server_endpoint(server, 0, where, sizeof where, NULL, &error) != KEEPSOCK_OK)
        goto done;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    puts(where);
    fflush(stdout);

    if (keepsock_service_wait_stopped(service, KEEPSOCK_INFINITE, &error) != KEEPSOCK_OK
        || keepsock_service_drain(service, 5000, &completed, &reset, &error) != KEEPSOCK_OK)
        goto done;
    printf("drained: %" PRIu32 " completed, %" PRIu32 " reset\n", completed, reset);
    exit_status = 0;

done:
    keepsock_error_print("chat", &error);
    keepsock_service_free(service);
    keepsock_server_free(server);
    keepsock_serve_options_free(serve_options);
    keepsock_options_free(options);
    signal(SIGINT, SIG_DFL); /* the handler must not use a freed token */
    signal(SIGTERM, SIG_DFL);
    keepsock_cancel_token_free(stop);
    return exit_status;
}
