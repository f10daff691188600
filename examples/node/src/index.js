const polka = require("polka");

const port = Number(process.env.PORT ?? 3000);

const app = polka().get("/", (request, response) => {
  response.setHeader("Content-Type", "text/plain; charset=utf-8");
  response.end(`Hello from Node ${process.version} on ${process.platform}/${process.arch}\n`);
});

app.listen(port, (error) => {
  if (error) throw error;
  console.log(`listening on port ${port} (${process.platform}/${process.arch})`);
});

// As process 1 of a container, Node has no default handler for the signal that ends a pod.
process.on("SIGTERM", () => app.server.close());
