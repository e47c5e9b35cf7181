/*
 * Routes of afcgitest on the C libfcgi, started by spawn-fcgi: as many threads as THREADS says, or 64, each with one connection at a time and one request at a time
 * on that. With one thread it is the first thread that serves, which hears signals.
 */
#include <fcgiapp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define THREADS 64

static const char *parameter(FCGX_Request *request, const char *name) {
    const char *value = FCGX_GetParam(name, request->envp);
    return value ? value : "";
}

/* The number behind name= at the beginning of the query or behind a `&`. */
static long number(FCGX_Request *request, const char *name, long otherwise) {
    size_t length = strlen(name);
    const char *query = parameter(request, "QUERY_STRING");
    while (query) {
        if (!strncmp(query, name, length) && query[length] == '=')
            return atol(query + length + 1);
        query = strchr(query, '&');
        if (query)
            query++;
    }
    return otherwise;
}

static void hello(FCGX_Request *request) {
    FCGX_FPrintF(request->out, "Content-Type: text/plain\r\nContent-Length: 12\r\n\r\nHello world\n");
}

static void echo(FCGX_Request *request) {
    size_t length = 0, room = 1 << 16;
    char *body = malloc(room);
    int count;
    while (body && (count = FCGX_GetStr(body + length, (int)(room - length), request->in)) > 0) {
        length += (size_t)count;
        if (length == room)
            body = realloc(body, room *= 2);
    }
    if (!body)
        abort();
    FCGX_FPrintF(request->out, "Content-Type: application/octet-stream\r\nContent-Length: %lu\r\n\r\n", (unsigned long)length);
    FCGX_PutStr(body, (int)length, request->out);
    free(body);
}

static void env(FCGX_Request *request) {
    FCGX_FPrintF(request->out, "Content-Type: text/plain\r\n\r\n");
    for (char **pair = request->envp; *pair; pair++)
        FCGX_FPrintF(request->out, "%s\n", *pair);
}

static void status(FCGX_Request *request) {
    long code = number(request, "code", 400);
    FCGX_FPrintF(request->out, "Status: %d Some reason\r\nContent-Type: text/plain\r\n\r\n", (int)code);
    if (code != 204 && code != 304)
        FCGX_FPrintF(request->out, "%d\n", (int)code);
}

static void events(FCGX_Request *request) {
    long count = number(request, "n", 10), pause = number(request, "ms", 1000);
    FCGX_FPrintF(request->out, "Content-Type: text/event-stream\r\n\r\n");
    for (long n = 0; n < count; n++) {
        if (n > 0)
            usleep((useconds_t)(1000 * pause));
        FCGX_FPrintF(request->out, "data: %d\n\n", (int)n);
        if (FCGX_FFlush(request->out))
            return;
    }
}

static void answer(FCGX_Request *request) {
    const char *path = parameter(request, "PATH_INFO");
    if (!*path)
        path = parameter(request, "SCRIPT_NAME");
    if (!strcmp(path, "/echo"))
        return echo(request);
    if (!strcmp(path, "/env"))
        return env(request);
    if (!strcmp(path, "/status"))
        return status(request);
    if (!strcmp(path, "/events"))
        return events(request);
    if (!strcmp(path, "/delay"))
        usleep((useconds_t)(1000 * number(request, "ms", 0)));
    if (!strcmp(path, "/stderr"))
        FCGX_FPrintF(request->err, "written by /stderr\n");
    hello(request);
}

static void *serve(void *unused) {
    FCGX_Request request;
    (void)unused;
    FCGX_InitRequest(&request, 0, 0);
    while (FCGX_Accept_r(&request) == 0) {
        answer(&request);
        FCGX_Finish_r(&request);
    }
    return NULL;
}

int main(void) {
    pthread_t threads[THREADS];
    const char *wanted = getenv("THREADS");
    int count = wanted ? atoi(wanted) : THREADS;
    if (count < 1 || count > THREADS)
        return 1;
    signal(SIGPIPE, SIG_IGN);
    if (FCGX_Init())
        return 1;
    if (count == 1) {
        serve(NULL);
        return 0;
    }
    for (int i = 0; i < count; i++)
        if (pthread_create(&threads[i], NULL, serve, NULL))
            return 1;
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    return 0;
}
