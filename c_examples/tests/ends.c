/*
 * The ways in which a process ends while threads of the library run: an event
 * loop, and the background closer, which waits for a peer that does not close.
 * A process that waits for the closer at its end is killed by SIGALRM.
 *
 *     ends return|exit|quick_exit|_exit|pthread_exit
 *
 * Compiled with UNLOAD, and not linked with the library, it loads the library
 * by dlopen(3) and unloads it by dlclose(3) while its threads run:
 *
 *     unload LIBRARY
 *
 * The status is 17.
 */
#define _GNU_SOURCE /* quick_exit, RTLD_LOCAL */
#include <keepsock.h>

#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STATUS = 17 };

#define FUNCTIONS(each) \
    each(server_listen) each(server_endpoint) each(server_accept) each(server_serve_events) \
    each(options_new) each(options_set_close_timeout) each(client_connect) each(client_write_all) \
    each(client_free) each(conn_send)

/* The functions of the library that the program is linked with, or of a loaded one. */
static struct {
#define DECLARE(name) __typeof__(keepsock_##name) *name;
    FUNCTIONS(DECLARE)
} api;

static void check(int holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "ends: %s\n", what);
        exit(1);
    }
}

static void echo(keepsock_conn conn, const void *data, size_t len, void *user) {
    (void)user;
    api.conn_send(conn, data, len, NULL);
}

/* A plain connection to the server. */
static int plain_connect(const char *endpoint) {
    struct sockaddr_in to = {0};
    to.sin_family = AF_INET;
    to.sin_port = htons((uint16_t)atoi(strchr(endpoint, ':') + 1));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    check(fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0, "connect");
    return fd;
}

static void ping(int fd) {
    char c = 'x';
    check(write(fd, &c, 1) == 1 && read(fd, &c, 1) == 1, "the event loop sends no reply");
}

/* Starts the threads. Returns a plain connection to the event loop. */
static int start(void) {
    static keepsock_server *echoes, *waits;
    static keepsock_service *service;
    static keepsock_client *client, *peer;
    static keepsock_options *patient;
    keepsock_callbacks callbacks = {0};
    char endpoint[64];
    callbacks.size = sizeof callbacks;
    callbacks.on_data = echo;
    check(api.server_listen("127.0.0.1:0", NULL, &echoes, NULL) == KEEPSOCK_OK, "listen");
    check(api.server_serve_events(echoes, NULL, &callbacks, NULL, &service, NULL) == KEEPSOCK_OK, "serve");
    check(api.server_listen("127.0.0.1:0", NULL, &waits, NULL) == KEEPSOCK_OK, "listen");
    check(api.server_endpoint(waits, 0, endpoint, sizeof endpoint, NULL, NULL) == KEEPSOCK_OK, "endpoint");
    check(api.options_new(&patient, NULL) == KEEPSOCK_OK, "options");
    check(api.options_set_close_timeout(patient, 600000, NULL) == KEEPSOCK_OK, "close timeout");
    alarm(30);
    check(api.client_connect(endpoint, patient, &client, NULL) == KEEPSOCK_OK, "connect");
    check(api.server_accept(waits, &peer, NULL) == KEEPSOCK_OK, "accept");
    check(api.client_write_all(client, "x", 1, NULL) == KEEPSOCK_OK, "write");
    api.client_free(client);
    check(api.server_endpoint(echoes, 0, endpoint, sizeof endpoint, NULL, NULL) == KEEPSOCK_OK, "endpoint");
    int fd = plain_connect(endpoint);
    ping(fd);
    return fd;
}

#ifdef UNLOAD

/* A thread that has used the library ends after the library is unloaded. */
static pthread_barrier_t unloaded;

static void *use(void *fd) {
    *(int *)fd = start();
    pthread_barrier_wait(&unloaded);
    pthread_barrier_wait(&unloaded);
    return NULL;
}

int main(int argc, char **argv) {
    check(argc == 2, "usage: unload LIBRARY");
    void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    check(library != NULL, "dlopen");
#ifdef RTLD_NOLOAD
    /* The library stays. While threads run, some C libraries keep any library that they run. */
    check(dlclose(library) == 0, "dlclose");
    library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
    check(library != NULL, "dlclose unloads the library");
#endif
#define FIND(name) \
    { \
        void *found = dlsym(library, "keepsock_" #name); \
        check(found != NULL, #name); \
        memcpy(&api.name, &found, sizeof found); \
    }
    FUNCTIONS(FIND)
    pthread_t thread;
    int fd = -1;
    pthread_barrier_init(&unloaded, NULL, 2);
    check(pthread_create(&thread, NULL, use, &fd) == 0, "pthread_create");
    pthread_barrier_wait(&unloaded);
    check(dlclose(library) == 0, "dlclose");
    ping(fd);
    pthread_barrier_wait(&unloaded);
    pthread_join(thread, NULL);
    /* The library has handlers of pthread_atfork(3). */
    pid_t child = fork();
    if (child == 0)
        exit(STATUS);
    int status = 0;
    check(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == STATUS,
        "the forked child fails");
    ping(fd);
    return STATUS;
}

#else

static pthread_t main_thread;

static void *end_process(void *unused) {
    pthread_join(main_thread, NULL);
    exit(STATUS);
    return unused;
}

int main(int argc, char **argv) {
    const char *way = argc > 1 ? argv[1] : "";
#define LINKED(name) api.name = keepsock_##name;
    FUNCTIONS(LINKED)
    start();
    if (strcmp(way, "return") == 0)
        return STATUS;
    if (strcmp(way, "exit") == 0)
        exit(STATUS);
    if (strcmp(way, "quick_exit") == 0)
        quick_exit(STATUS);
    if (strcmp(way, "_exit") == 0)
        _exit(STATUS);
    if (strcmp(way, "pthread_exit") == 0) {
        pthread_t thread;
        main_thread = pthread_self();
        check(pthread_create(&thread, NULL, end_process, NULL) == 0, "pthread_create");
        pthread_exit(NULL);
    }
    check(0, "usage: ends WAY");
}

#endif
