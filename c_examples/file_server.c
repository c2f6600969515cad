/*
 * file_server.c - sends the files of a directory over HTTP, on one thread
 *
 *     file_server LISTEN DIRECTORY
 *     file_server '*:8000' /srv/files
 *
 * Listens on LISTEN (127.0.0.1:0 is any free port) and prints where. A client,
 * such as curl, may send any number of requests on one connection. The kernel
 * copies the bytes of the files (sendfile), and a slow client delays no other
 * client. While a file is sent, the library does not read from its client, so
 * the memory for a client is bounded.
 * SIGINT (Ctrl-C) or SIGTERM stops it: open connections have five seconds to
 * end. Exit status: 0 stopped by a signal, 1 failed, 2 wrong arguments.
 */
#define _POSIX_C_SOURCE 200809L
#include <fcntl.h>
#include <inttypes.h>
#include <keepsock.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A request of which the empty line is missing: the user pointer of its connection. */
struct request {
    char file[256]; /* the name; "" if the first line is not valid */
};

/* A signal handler has no user pointer, so the token is global. */
static keepsock_cancel_token *stop;

static void on_signal(int signo)
{
    (void)signo;
    keepsock_cancel_token_fire(stop);
}

/* Reads "GET /FILE HTTP/1.1". A name without '/' stays in the directory. */
static void parse(struct request *request, const char *line, size_t len)
{
    const char *name = line + 5;
    const char *end = len > 5 && memcmp(line, "GET /", 5) == 0 ? memchr(name, ' ', len - 5) : NULL;
    size_t size = end == NULL ? 0 : (size_t)(end - name);

    if (size == 0 || size >= sizeof request->file || *name == '.' || memchr(name, '/', size) != NULL)
        size = 0;
    memcpy(request->file, name, size);
    request->file[size] = '\0';
}

static void send_line(keepsock_conn conn, const char *line)
{
    keepsock_conn_send(conn, line, strlen(line), NULL);
}

/* Each line is a message in the framing of the service. The file is sent as it
 * is. If a call fails, the connection has ended, and on_close follows. */
static void answer(keepsock_conn conn, int directory, const struct request *request)
{
    struct stat found;
    char length[64];
    int file = openat(directory, request->file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    int is_found = file >= 0 && fstat(file, &found) == 0 && S_ISREG(found.st_mode);
    uint64_t size = is_found ? (uint64_t)found.st_size : 0;

    snprintf(length, sizeof length, "Content-Length: %" PRIu64, size);
    send_line(conn, is_found ? "HTTP/1.1 200 OK" : "HTTP/1.1 404 Not Found");
    send_line(conn, length);
    send_line(conn, "");
    /* The library duplicates the descriptor. If the file has become shorter, the
     * promised length is wrong, and only a reset shows this to the client. */
    if (is_found && keepsock_conn_send_file(conn, file, 0, size, NULL) != KEEPSOCK_OK)
        keepsock_conn_abort(conn, NULL);
    if (file >= 0)
        close(file);
}

static void on_data(keepsock_conn conn, const void *line, size_t len, void *user)
{
    const int *directory = user;
    struct request *request = keepsock_conn_user(conn);

    if (len == 0 && request != NULL) { /* the empty line after the head */
        answer(conn, *directory, request);
        keepsock_conn_set_user(conn, NULL, NULL);
        free(request);
    } else if (len > 0 && request == NULL) {
        request = malloc(sizeof *request);
        if (request == NULL) {
            keepsock_conn_abort(conn, NULL);
            return;
        }
        parse(request, line, len);
        keepsock_conn_set_user(conn, request, NULL);
    }
}

static void on_close(keepsock_conn conn, int32_t reason, void *user)
{
    (void)reason;
    (void)user;
    free(keepsock_conn_user(conn));
}

int main(int argc, char **argv)
{
    const keepsock_callbacks callbacks = { .size = sizeof callbacks, .on_data = on_data, .on_close = on_close };
    const keepsock_framing lines = { .size = sizeof lines, .kind = KEEPSOCK_FRAMING_LINES, .max = 8192 };
    keepsock_options *options = NULL;
    keepsock_serve_options *serve = NULL;
    keepsock_server *server = NULL;
    keepsock_service *service = NULL;
    keepsock_error *error = NULL;
    char where[KEEPSOCK_TEXT_SIZE];
    uint32_t completed, reset;
    int exit_status = 1, directory;

    if (argc != 3) {
        fprintf(stderr, "usage: file_server LISTEN DIRECTORY\n");
        return 2;
    }
    directory = open(argv[2], O_RDONLY | O_DIRECTORY);
    if (directory < 0) {
        perror(argv[2]);
        return 1;
    }

    if (keepsock_cancel_token_new(&stop, &error) != KEEPSOCK_OK
        || keepsock_options_new(&options, &error) != KEEPSOCK_OK
        || keepsock_options_set_cancel(options, stop, &error) != KEEPSOCK_OK
        || keepsock_options_set_idle_timeout(options, 30000, &error) != KEEPSOCK_OK
        || keepsock_serve_options_new(&serve, &error) != KEEPSOCK_OK
        || keepsock_serve_options_set_framing(serve, &lines, &error) != KEEPSOCK_OK
        || keepsock_server_listen(argv[1], options, &server, &error) != KEEPSOCK_OK
        || keepsock_server_serve_events(server, serve, &callbacks, &directory, &service, &error) != KEEPSOCK_OK
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
    keepsock_error_print("file_server", &error);
    keepsock_service_free(service);
    keepsock_server_free(server);
    keepsock_serve_options_free(serve);
    keepsock_options_free(options);
    signal(SIGINT, SIG_DFL); /* the handler must not use a freed token */
    signal(SIGTERM, SIG_DFL);
    keepsock_cancel_token_free(stop);
    close(directory);
    return exit_status;
}
