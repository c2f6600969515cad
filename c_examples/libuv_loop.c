/*
 * libuv_loop.c - a client inside a libuv loop, which reconnects and subscribes again
 *
 *     libuv_loop host:port subscription [sessions]
 *
 * Sends the subscription as a line on each new connection, and prints the lines
 * that arrive. The program starts no thread and waits in uv_run() only. Exit
 * status: 0 after that number of connections, 1 failed, 2 wrong arguments.
 */
#define _POSIX_C_SOURCE 200809L /* for uv.h */
#include <keepsock.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

struct program {
    uv_timer_t timer;        /* for the next call that keepsock requires */
    struct watcher *watched; /* while connecting one for each attempt, then one for the connection */
    keepsock_reconnect *reconnect;
    keepsock_client *client; /* NULL while connecting */
    keepsock_fd fd;          /* the descriptor of client */
    const char *subscription;
    long sessions; /* left; below 0: no limit */
};

struct watcher {
    uv_poll_t poll;
    keepsock_fd fd;
    struct watcher *next;
};

static void turn(struct program *program);

static void on_ready(uv_poll_t *poll, int status, int events)
{
    (void)status, (void)events;
    turn(poll->data);
}

static void on_timer(uv_timer_t *timer)
{
    turn(timer->data);
}

static void free_watcher(uv_handle_t *handle)
{
    free(handle); /* poll is the first member */
}

/* Called for each descriptor of a connect in progress, and by this program for its connection. */
static void on_watch(keepsock_fd fd, int32_t watch, void *user)
{
    struct program *program = user;
    struct watcher **at = &program->watched, *found;

    while ((found = *at) != NULL && found->fd != fd)
        at = &found->next;
    if (watch == KEEPSOCK_WATCH_REMOVE) {
        if (found != NULL) {
            *at = found->next;
            uv_close((uv_handle_t *)&found->poll, free_watcher); /* ends polling now, frees later */
        }
        return;
    }
    if (found == NULL) {
        if ((*at = found = calloc(1, sizeof *found)) == NULL || uv_poll_init(program->timer.loop, &found->poll, fd) != 0)
            abort(); /* no memory */
        found->poll.data = program;
        found->fd = fd;
    }
    uv_poll_start(&found->poll, watch == KEEPSOCK_WATCH_READ ? UV_READABLE : UV_WRITABLE, on_ready);
}

/* A timer of libuv may expire 1 ms early. The next call then reports the time that is left. */
static void on_timeout(int64_t timeout_ms, void *user)
{
    struct program *program = user;

    uv_update_time(program->timer.loop); /* a timer starts at the time that the loop has stored */
    if (timeout_ms == KEEPSOCK_INFINITE)
        uv_timer_stop(&program->timer);
    else
        uv_timer_start(&program->timer, on_timer, (uint64_t)timeout_ms, 0);
}

/* Reads what has arrived, and checks the server. Returns only after a failure, or when it would wait. */
static int32_t receive(struct program *program)
{
    char line[1024];
    int64_t timeout_ms;
    int32_t status;

    /* Without an error object a read that would block allocates nothing. */
    while ((status = keepsock_client_read_line(program->client, line, sizeof line, NULL, NULL)) == KEEPSOCK_OK)
        puts(line);
    if (status == KEEPSOCK_ERR_WOULD_BLOCK
        && (status = keepsock_client_check_liveness(program->client, &timeout_ms, NULL)) == KEEPSOCK_OK)
        on_timeout(timeout_ms, program);
    return status;
}

/* Called when a descriptor is ready or the timer has expired. */
static void turn(struct program *program)
{
    char line[1024];
    keepsock_error *error = NULL;
    int32_t status = KEEPSOCK_OK;

    if (program->client == NULL) {
        status = keepsock_reconnect_try_connect(program->reconnect, &program->client, &error);
        if (status != KEEPSOCK_OK) {
            if (status != KEEPSOCK_ERR_WOULD_BLOCK) { /* permanent: a retry cannot succeed */
                fprintf(stderr, "libuv_loop: %s\n", keepsock_error_message(error));
                uv_stop(program->timer.loop);
            }
            keepsock_error_free(error);
            return; /* the callbacks have reported what to wait for */
        }
        /* The server knows no subscription of the new connection. */
        snprintf(line, sizeof line, "%s\n", program->subscription);
        puts("connected");
        if ((status = keepsock_client_fd(program->client, &program->fd, NULL)) == KEEPSOCK_OK) {
            on_watch(program->fd, KEEPSOCK_WATCH_READ, program);
            status = keepsock_client_set_nonblocking(program->client, true, NULL);
        }
        if (status == KEEPSOCK_OK)
            status = keepsock_client_write_str(program->client, line, NULL);
    }
    if (status == KEEPSOCK_OK && (status = receive(program)) == KEEPSOCK_OK)
        return;
    printf("lost: %s\n", keepsock_status_str(status));
    on_watch(program->fd, KEEPSOCK_WATCH_REMOVE, program); /* before the connection closes it */
    keepsock_client_free(program->client);
    program->client = NULL;
    if (program->sessions > 0 && --program->sessions == 0)
        uv_stop(program->timer.loop);
    else
        on_timeout(0, program); /* turn() connects again */
}

int main(int argc, char **argv)
{
    uv_loop_t *loop = uv_default_loop();
    struct program program = {.sessions = argc > 3 ? strtol(argv[3], NULL, 10) : -1};
    keepsock_options *options = NULL;
    keepsock_error *error = NULL;

    if (argc < 3)
        return fprintf(stderr, "usage: libuv_loop host:port subscription [sessions]\n"), 2;
    program.subscription = argv[2];
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    uv_timer_init(loop, &program.timer);
    program.timer.data = &program;

    /* A vanished server is detected within 10 s, a try takes at most 5 s, and the
     * delays between tries are random, below 50 ms, 100 ms, ... 10 s. */
    if (keepsock_options_new(&options, &error) == KEEPSOCK_OK
        && keepsock_options_set_dead_after(options, 10000, &error) == KEEPSOCK_OK
        && keepsock_options_set_connect_timeout(options, 5000, &error) == KEEPSOCK_OK
        && keepsock_reconnect_new(argv[1], options, &program.reconnect, &error) == KEEPSOCK_OK
        && keepsock_reconnect_set_backoff(program.reconnect, 50, 10000, &error) == KEEPSOCK_OK
        && keepsock_reconnect_set_watch(program.reconnect, on_watch, on_timeout, &program, &error) == KEEPSOCK_OK) {
        turn(&program); /* starts to connect */
        uv_run(loop, UV_RUN_DEFAULT);
    }

    keepsock_error_print("libuv_loop", &error);
    keepsock_reconnect_free(program.reconnect); /* removes its descriptors from the loop */
    keepsock_options_free(options);
    uv_close((uv_handle_t *)&program.timer, NULL);
    uv_run(loop, UV_RUN_DEFAULT); /* frees the closed handles */
    uv_loop_close(loop);
    return program.sessions == 0 ? 0 : 1;
}
