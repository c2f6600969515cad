/*
 * pass.c - accepts connections in one process, and serves them in another process
 *
 *     pass work unix:/run/worker &
 *     pass accept unix:/run/worker [--count N] [endpoint]
 *
 * The worker listens on a Unix socket that only its own user may use. The
 * acceptor listens on endpoint (default 127.0.0.1:0, any free port), prints
 * where, and passes each connection to the worker, which answers one line. The
 * acceptor ends after N clients, and the worker ends when the acceptor has
 * disconnected. This way a worker can be restarted while the acceptor listens, or
 * can run with fewer rights. Exit status: 0 done, 1 failed, 2 wrong arguments.
 */
#define _POSIX_C_SOURCE 200809L
#include <keepsock.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Serves one connection, as if this process had accepted it. */
static int32_t answer(keepsock_client *visitor, keepsock_error **error)
{
    char line[256], reply[512];
    int32_t status = keepsock_client_read_line(visitor, line, sizeof line, NULL, error);

    if (status != KEEPSOCK_OK)
        return status;
    snprintf(reply, sizeof reply, "%s from worker %ld\n", line, (long)getpid());
    return keepsock_client_write_str(visitor, reply, error);
}

/* Receives and serves connections until the acceptor disconnects. */
static int work(keepsock_client *acceptor, const keepsock_options *options, keepsock_error **error)
{
    for (;;) {
        keepsock_client *visitor = NULL;
        keepsock_error *failed = NULL;
        keepsock_fd fd;
        size_t len, count;
        char order;

        /* A descriptor travels with a byte: each read receives one connection. The
         * descriptor is close-on-exec, and this function must close it. */
        if (keepsock_client_recv_fds(acceptor, &order, 1, &fd, 1, &len, &count, NULL, error) != KEEPSOCK_OK)
            return 1;
        if (len == 0)
            return 0;
        if (count == 0) { /* RLIMIT_NOFILE: this process may open no more descriptors */
            fprintf(stderr, "pass: a connection was lost\n");
            continue;
        }
        if (keepsock_client_from_fd(fd, options, &visitor, &failed) != KEEPSOCK_OK)
            close(fd); /* a failed from_fd leaves the descriptor to the caller */
        else if (answer(visitor, &failed) == KEEPSOCK_OK)
            keepsock_client_close(visitor, &failed);

        /* An error of one client must not stop the worker. */
        keepsock_error_print("pass", &failed);
        keepsock_client_free(visitor);
    }
}

/* Accepts connections, and passes them to the worker. */
static int dispatch(keepsock_server *server, keepsock_client *worker, long count, keepsock_error **error)
{
    while (count != 0) {
        keepsock_client *visitor = NULL;
        keepsock_fd fd;
        size_t written;
        int32_t status = keepsock_server_accept(server, &visitor, error);

        if (status == KEEPSOCK_OK)
            status = keepsock_client_fd(visitor, &fd, error);
        if (status == KEEPSOCK_OK)
            status = keepsock_client_send_fds(worker, "c", 1, &fd, 1, &written, error);

        /* The worker shares the connection now. keepsock_client_close() would end it
         * for both processes; release_fd and close(2) close this copy only. */
        if (status == KEEPSOCK_OK)
            status = keepsock_client_release_fd(visitor, &fd, error);
        if (status == KEEPSOCK_OK)
            close(fd);
        keepsock_client_free(visitor);
        if (status != KEEPSOCK_OK)
            return 1;
        if (count > 0)
            count--;
    }
    return 0;
}

int main(int argc, char **argv)
{
    long count = -1; /* no limit */
    bool works = argc == 3 && strcmp(argv[1], "work") == 0;
    keepsock_options *options = NULL, *guarded = NULL;
    keepsock_server *server = NULL;
    keepsock_client *other = NULL;
    keepsock_error *error = NULL;
    char where[KEEPSOCK_TEXT_SIZE];
    const char *endpoint = "127.0.0.1:0";
    int exit_status = 1;

    if (!works && argc > 4 && strcmp(argv[3], "--count") == 0) {
        count = strtol(argv[4], NULL, 10);
        if (argc > 5)
            endpoint = argv[5];
    } else if (argc > 3) {
        endpoint = argv[3];
    }
    if (!works && (argc < 3 || argc > 6 || strcmp(argv[1], "accept") != 0)) {
        fprintf(stderr, "usage: pass work WORKER | pass accept WORKER [--count N] [endpoint]\n");
        return 2;
    }

    /* A client that sends nothing must not block the worker without end. */
    if (keepsock_options_new(&options, &error) != KEEPSOCK_OK
        || keepsock_options_set_read_timeout(options, 10000, &error) != KEEPSOCK_OK)
        goto done;

    if (works) {
        /* A process that may pass connections is trusted. Only processes of this
         * user may: the mode of the file and the peer's credentials ensure that. */
        if (keepsock_options_new(&guarded, &error) != KEEPSOCK_OK
            || keepsock_options_set_unix_mode(guarded, 0600, &error) != KEEPSOCK_OK
            || keepsock_options_add_allowed_uid(guarded, (uint32_t)geteuid(), &error) != KEEPSOCK_OK
            || keepsock_server_listen(argv[2], guarded, &server, &error) != KEEPSOCK_OK
            || keepsock_server_endpoint(server, 0, where, sizeof where, NULL, &error) != KEEPSOCK_OK)
            goto done;
        puts(where);
        fflush(stdout);
        if (keepsock_server_accept(server, &other, &error) != KEEPSOCK_OK)
            goto done;
        exit_status = work(other, options, &error);
    } else {
        if (keepsock_client_connect(argv[2], NULL, &other, &error) != KEEPSOCK_OK
            || keepsock_server_listen(endpoint, NULL, &server, &error) != KEEPSOCK_OK
            || keepsock_server_endpoint(server, 0, where, sizeof where, NULL, &error) != KEEPSOCK_OK)
            goto done;
        puts(where);
        fflush(stdout);
        exit_status = dispatch(server, other, count, &error);
    }

done:
    keepsock_error_print("pass", &error);
    keepsock_client_close(other, NULL); /* the worker reads to the end of the stream */
    keepsock_client_free(other);
    keepsock_server_free(server);
    keepsock_options_free(guarded);
    keepsock_options_free(options);
    return exit_status;
}
